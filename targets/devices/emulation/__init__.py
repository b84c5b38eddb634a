"""An aarch64 board on an x86-64 machine: Debian's arm64 packages, aarch64 wheels and qemu's user mode. Answers are real, times are not."""
