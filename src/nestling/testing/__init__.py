"""Public conformance suites: anybody's elastic thing is done when :func:`check_elastic` passes."""

from nestling.testing.elastic import ELASTIC_LAWS, ElasticExample, LawError, check_elastic

__all__ = ["ELASTIC_LAWS", "ElasticExample", "LawError", "check_elastic"]
