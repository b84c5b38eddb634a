"""Temperature, clocks, throttling, power and memory while something is measured; what is not there says why, and is never 0."""

from targets.telemetry.base import Absent, Column, Probe, Sensor
from targets.telemetry.command import KeptMeter, power_command
from targets.telemetry.describe import SensorStatus, describe_sensors
from targets.telemetry.energy import Energy, FrameEnergy, energy, energy_per_frame, has_power
from targets.telemetry.recorder import Recorder, measure_idle
from targets.telemetry.sensors import GENERIC, SENSORS, find_sensors
from targets.telemetry.trace import Gap, Trace
from targets.telemetry.usage import pss_bytes
from targets.telemetry.verdict import LatencyWindow, ThrottlingVerdict, chart_series, latency_windows, throttling_verdict

__all__ = [
    "GENERIC", "SENSORS", "Absent", "Column", "Energy", "FrameEnergy", "Gap", "KeptMeter", "LatencyWindow", "Probe", "Recorder", "Sensor",
    "SensorStatus", "ThrottlingVerdict", "Trace", "chart_series", "describe_sensors", "energy", "energy_per_frame", "find_sensors",
    "has_power", "latency_windows", "measure_idle", "power_command", "pss_bytes", "throttling_verdict",
]
