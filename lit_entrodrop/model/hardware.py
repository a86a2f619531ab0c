"""What accelerators can hold, compute and send.

Numbers are those of the makers: dense bf16 (without sparsity), and bandwidths of one direction,
which are half of what data sheets sum up.

- H100 SXM, H200: NVIDIA data sheets "H100 Tensor Core GPU" and "H200 Tensor Core GPU" (989 TFLOPS,
  NVLink 900 GB/s, PCIe Gen5 128 GB/s); eight to a machine with 400 Gb/s InfiniBand for each and
  2 TB of host memory, as in NVIDIA's DGX H100/H200 user guide.
- B200: data sheet "DGX B200" (36 PFLOPS dense FP8 for eight, of which bf16 is half; NVLink
  1.8 TB/s; 400 Gb/s for each; 2 TB).
- A100: data sheet "A100 80GB" (312 TFLOPS, NVLink 600 GB/s, PCIe Gen4 64 GB/s); DGX A100 user guide
  (200 Gb/s for each; 1 TB beside 40 GB, 2 TB beside 80 GB).
- L40S, L4, A10G, RTX 4090, RTX 3090: NVIDIA data sheets and the "Ada" and "GA102" GPU architecture
  white papers; PCIe Gen4 alone joins them (RTX 3090 without an NVLink bridge). The network and host
  memory around them differ from house to house: 100 Gb/s a machine and 512 GB (RTX: 10 Gb/s and
  128 GB) are taken.
"""

from dataclasses import dataclass

GB = 10**9


@dataclass(frozen=True)
class Hardware:
    """One kind of machine.

    Args:
        name: of the accelerator.
        memory_gb: of a device, in 10⁹ bytes.
        peak_flops: dense bf16 operations per second.
        intra_node_bandwidth: bytes per second that a device sends to others of its machine.
        inter_node_bandwidth: bytes per second that a device sends to other machines, while all
            devices of its machine do.
        devices_per_node: devices of a machine.
        host_memory_gb: of a machine, in 10⁹ bytes.
        host_bandwidth: bytes per second between a device and host memory.
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
    """Return what is known of an accelerator.

    Args:
        name: one of ``HARDWARE``, in any case.

    Raises:
        ValueError: listing all, if it is not known.

    >>> find_hardware("H100").memory_gb
    80
    """
    try:
        return HARDWARE[name.lower()]
    except KeyError:
        raise ValueError(
            f"hardware: expected one of {', '.join(HARDWARE)}, got {name!r}: take the one that is "
            "most alike"
        ) from None
