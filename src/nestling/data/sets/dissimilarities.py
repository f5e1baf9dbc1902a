"""RDMs of 92 images from brains, human judgements and models."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nestling.data.sets.source import locate
from nestling.errors import ConfigError, DataError, require, unknown

_PICTURES = 92


@dataclass(frozen=True)
class Dissimilarities:
    """Several matrices over the same stimuli.

    Args:
        squares: ``Float[m, n, n]``, symmetric, zero on the diagonal.
        labels: values that distinguish the matrices, one for each matrix under each name.
    """

    squares: NDArray[np.floating]
    labels: Mapping[str, tuple[str, ...]]

    def __len__(self) -> int:
        return len(self.squares)


def pictures92(part: str) -> Dissimilarities:
    """Dissimilarities of the 92 pictures of Kriegeskorte et al. 2008, one part of five.

    The first 48 pictures show bodies and faces of people and animals, the last 44 show things.
    ``RDMs.of(pictures92("brains"))`` gives the matrices as ``nestling.compare`` takes them.

    ==============  ==============================================================  ========================
    part            matrices                                                        labels
    ==============  ==============================================================  ========================
    ``"brains"``    human inferior temporal cortex, 4 people in 2 scans each        ``subject``, ``session``
    ``"judges"``    16 people who arranged the pictures by likeness                 ``subject``
    ``"models"``    8 models, among them categories, HMAX and V1                    ``name``
    ``"species"``   monkey and human inferior temporal cortex                       ``name``
    ``"alexnet"``   9 layers of AlexNet, each as measured by up to 12 models of     ``layer``,
                    a measurement                                                   ``measurement``
    ==============  ==============================================================  ========================

    Raises:
        ConfigError: for another part.
        DataError: if the files cannot be found, or are not what they should be.
        MissingExtraError: if scipy is not installed.

    Source: Kriegeskorte et al. 2008 (Neuron 60), and the demos of rsatoolbox.
    """
    if part not in _PARTS:
        raise ConfigError(unknown("part", part, _PARTS))
    file, variable, name_of = _PARTS[part]
    path = locate("rsa") / file
    try:
        entries = _loaded(path)[variable].ravel()
        squares = np.stack([_square(entry.RDM) for entry in entries])
        labels = [name_of(entry) for entry in entries]
    except (KeyError, AttributeError, ValueError, TypeError, OSError, NotImplementedError) as error:
        raise DataError(f"{path} does not hold the dissimilarities it should: {error}") from error
    return Dissimilarities(squares, {name: tuple(each[name] for each in labels) for name in labels[0]})


def _loaded(path: Path) -> Mapping[str, Any]:
    found: Mapping[str, Any] = require("scipy.io", "sklearn").loadmat(
        path, squeeze_me=True, struct_as_record=False
    )
    return found


def _square(matrix: NDArray[Any]) -> NDArray[np.float64]:
    matrix = require("scipy.spatial.distance", "sklearn").squareform(matrix) if matrix.ndim == 1 else matrix
    if matrix.shape != (_PICTURES, _PICTURES):
        raise ValueError(f"a matrix of shape {matrix.shape} is not one of {_PICTURES} pictures")
    return np.asarray(matrix, np.float64)


def _scan(entry: Any) -> dict[str, str]:
    _, subject, session = entry.name.split(" | ")
    return {"subject": subject, "session": session.removeprefix("Session: ")}


def _judge(entry: Any) -> dict[str, str]:
    return {"subject": entry.name.removeprefix("simJudge | ")}


def _named(entry: Any) -> dict[str, str]:
    return {"name": str(entry.name)}


def _layer(entry: Any) -> dict[str, str]:
    return {"layer": str(entry.reprName), "measurement": str(entry.measModelName)}


_Labels = Callable[[Any], dict[str, str]]
_PARTS: dict[str, tuple[str, str, _Labels]] = {
    "brains": ("92_brainRDMs.mat", "RDMs", _scan),
    "judges": ("92_behavRDMs.mat", "rdms_behav_92", _judge),
    "models": ("92_modelRDMs.mat", "Models", _named),
    "species": ("Kriegeskorte_Neuron2008_supplementalData.mat", "RDMs_mIT_hIT_fig1", _named),
    "alexnet": ("modelRDMs_A2020.mat", "modelRDMs", _layer),
}
