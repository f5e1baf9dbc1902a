"""Public conformance suites: your elastic model, loss, task or store is done when its check passes."""

from typing import TYPE_CHECKING

from nestling._exports import exports

if TYPE_CHECKING:
    from nestling.testing.elastic import ELASTIC_LAWS as ELASTIC_LAWS
    from nestling.testing.elastic import ElasticExample as ElasticExample
    from nestling.testing.elastic import LawError as LawError
    from nestling.testing.elastic import check_elastic as check_elastic
    from nestling.testing.store import STORE_LAWS as STORE_LAWS
    from nestling.testing.store import check_store as check_store
    from nestling.testing.store_example import StoreExample as StoreExample

__getattr__, __dir__, __all__ = exports(
    __name__,
    {
        "ELASTIC_LAWS": "elastic",
        "STORE_LAWS": "store",
        "ElasticExample": "elastic",
        "LawError": "elastic",
        "StoreExample": "store_example",
        "check_elastic": "elastic",
        "check_store": "store",
    },
)
