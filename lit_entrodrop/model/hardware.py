"""Memory, peak FLOPS and bandwidths of accelerators.

The vendors publish these numbers: dense bf16 FLOPS (without sparsity), and bandwidths. Bandwidths
are for one direction, half of the values in data sheets.

- H100 SXM, H200: NVIDIA data sheets "H100 Tensor Core GPU" and "H200 Tensor Core GPU" (989 TFLOPS,
  NVLink 900 GB/s, PCIe Gen5 128 GB/s); eight per machine with 400 Gb/s InfiniBand each and
  2 TB of host memory, as in NVIDIA's DGX H100/H200 user guide.
- B200: data sheet "DGX B200" (36 PFLOPS dense FP8 for eight, half of it in bf16; NVLink
  1.8 TB/s; 400 Gb/s each; 2 TB).
- A100: data sheet "A100 80GB" (312 TFLOPS, NVLink 600 GB/s, PCIe Gen4 64 GB/s); DGX A100 user guide
  (200 Gb/s each; 1 TB of host memory with 40 GB, 2 TB with 80 GB).
- L40S, L4, A10G, RTX 4090, RTX 3090: NVIDIA data sheets and the "Ada" and "GA102" GPU architecture
  white papers; only PCIe Gen4 connects them (RTX 3090 without an NVLink bridge). Network and host
  memory vary between machines: 100 Gb/s per machine and 512 GB are assumed (RTX: 10 Gb/s and
  128 GB).
"""

from dataclasses import dataclass

GB = 10**9


@dataclass(frozen=True)
class Hardware:
    """One kind of machine with its accelerators.

    Args:
        name: Name of the accelerator.
        memory_gb: Memory of a device, in 10⁹ bytes.
        peak_flops: Dense bf16 operations per second.
        intra_node_bandwidth: Bandwidth from a device to others in its machine, in bytes per second.
        inter_node_bandwidth: Bandwidth from a device to other machines while all devices of its
            machine send, in bytes per second.
        devices_per_node: Number of devices in a machine.
        host_memory_gb: Host memory of a machine, in 10⁹ bytes.
        host_bandwidth: Bandwidth between a device and host memory, in bytes per second.
    """

    name: str
    memory_gb: float
    peak_flops: float
    intra_node_bandwidth: float
    inter_node_bandwidth: float
    devices_per_node: int
    host_memory_gb: float
    host_bandwidth: float


_PCIE4, _PCIE5 = 32e9, 64e9

HARDWARE = {
    each.name: each
    for each in (
        Hardware("b200", 180, 2250e12, 900e9, 50e9, 8, 2000, _PCIE5),
        Hardware("h200", 141, 989e12, 450e9, 50e9, 8, 2000, _PCIE5),
        Hardware("h100", 80, 989e12, 450e9, 50e9, 8, 2000, _PCIE5),
        Hardware("a100-80gb", 80, 312e12, 300e9, 25e9, 8, 2000, _PCIE4),
        Hardware("a100-40gb", 40, 312e12, 300e9, 25e9, 8, 1000, _PCIE4),
        Hardware("l40s", 48, 362e12, _PCIE4, 100e9 / 8 / 8, 8, 512, _PCIE4),
        Hardware("l4", 24, 121e12, _PCIE4, 100e9 / 8 / 8, 8, 512, _PCIE4),
        Hardware("a10g", 24, 70e12, _PCIE4, 100e9 / 8 / 8, 8, 512, _PCIE4),
        Hardware("rtx4090", 24, 165e12, _PCIE4, 10e9 / 8 / 4, 4, 128, _PCIE4),
        Hardware("rtx3090", 24, 71e12, _PCIE4, 10e9 / 8 / 4, 4, 128, _PCIE4),
    )
}


def find_hardware(name: str) -> Hardware:
    """Return the hardware with a name, ignoring case.

    Raises:
        ValueError: If the name is unknown.

    >>> find_hardware("H100").memory_gb
    80
    """
    try:
        return HARDWARE[name.lower()]
    except KeyError:
        raise ValueError(
            f"hardware: expected one of {', '.join(HARDWARE)}, got {name!r}: choose "
            "the most similar one"
        ) from None
