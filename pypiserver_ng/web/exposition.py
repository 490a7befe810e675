"""Facts become the formats that Prometheus reads.

prometheus-client writes them. Its own metrics and its registry of them are not used: they know one process only.
"""

import platform
from collections.abc import Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, choose_encoder, generate_latest
from prometheus_client.registry import Collector

from pypiserver_ng import __version__
from pypiserver_ng.counters import Totals
from pypiserver_ng.web.metrics import Facts


def write(facts: Facts, accept: str) -> tuple[bytes, str]:
    """The numbers, and their content type: the text format, or OpenMetrics for who asks for it."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Facts(facts))
    try:
        encode, content_type = choose_encoder(accept)
    except TypeError:
        # The version that is asked for is no number.
        encode, content_type = generate_latest, CONTENT_TYPE_PLAIN_0_0_4
    return encode(registry), content_type


class _Facts(Collector):
    def __init__(self, facts: Facts) -> None:
        self._facts = facts

    def collect(self) -> Iterator[Metric]:
        facts = self._facts
        yield from _describe_http(facts.totals)
        yield GaugeMetricFamily("pypiserver_ng_projects", "Projects that have files here.", facts.projects)
        yield GaugeMetricFamily("pypiserver_ng_files", "Files that are here.", facts.files)
        yield GaugeMetricFamily("pypiserver_ng_catalog_serial", "The number of the last change.", facts.serial)
        yield from _describe_processes(facts)


def _describe_http(totals: Totals) -> Iterator[Metric]:
    requests = CounterMetricFamily(
        "pypiserver_ng_http_requests",
        "Requests by the status that they were answered with.",
        labels=("method", "status"),
    )
    for kind, number in totals.answers.items():
        requests.add_metric(kind, number)
    yield requests
    yield CounterMetricFamily(
        "pypiserver_ng_http_answers_from_memory",
        "Those of them that were answered without asking the application.",
        totals.answers_from_memory,
    )
    yield GaugeMetricFamily("pypiserver_ng_http_connections", "Connections that are open.", totals.connections)


def _describe_processes(facts: Facts) -> Iterator[Metric]:
    totals = facts.totals
    info = GaugeMetricFamily("pypiserver_ng_info", "What is running; always 1.", labels=("version", "python"))
    info.add_metric((__version__, platform.python_version()), 1)
    yield info
    yield GaugeMetricFamily("pypiserver_ng_workers", "Processes that serve.", totals.workers)
    yield GaugeMetricFamily("process_start_time_seconds", "When the server started.", facts.started)
    yield CounterMetricFamily(
        "process_cpu_seconds", "Processor time of all processes that have served.", totals.cpu_seconds
    )
    # Absent where the system does not tell.
    if totals.resident:
        yield GaugeMetricFamily(
            "process_resident_memory_bytes",
            "Resident memory of all processes that serve; what they share is counted for each.",
            totals.resident,
        )
