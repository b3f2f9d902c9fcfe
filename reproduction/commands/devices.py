"""The devices of OpenCL that ./reproduce predict --device and ./reproduce benchmark xnor --opencl
can run on."""

import sys

from original_stack.command_line import Parser, run

from reproduction.deploy import opencl


def devices(_):
    """The command: prints a line for each device."""
    for i, device in enumerate(opencl.devices()):
        print(f"opencl:{i}  {opencl.description(device)}")


def main(argv=None):
    return run(Parser(prog="devices", description=__doc__), devices, argv)


if __name__ == "__main__":
    sys.exit(main())
