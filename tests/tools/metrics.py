"""What `/-/metrics` says, as the library that wrote it reads it again."""

from collections.abc import Callable, Iterable

from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families as parse_text

Parse = Callable[[str], Iterable[Metric]]


def read(text: str, parse: Parse = parse_text) -> dict[str, float]:
    """The value of every sample, by its name and its labels' values."""
    return {
        " ".join((sample.name, *sample.labels.values())): sample.value
        for metric in parse(text)
        for sample in metric.samples
    }
