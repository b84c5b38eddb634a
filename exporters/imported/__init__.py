"""Models that were trained elsewhere: read, given the contract inside their own graph, and written as a bundle's model files."""

from exporters.imported.base import Opened, Port, Reading, Settled, Source
from exporters.imported.reading import Wishes, choose_ports, fix_input, read_output, sentences
from exporters.imported.reference import answer_as_the_original
from exporters.imported.registry import SOURCES, find_source, refuse_format

__all__ = [
    "SOURCES", "Opened", "Port", "Reading", "Settled", "Source", "Wishes",
    "answer_as_the_original", "choose_ports", "find_source", "fix_input", "read_output", "refuse_format", "sentences",
]
