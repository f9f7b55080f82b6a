"""Build step: compiles what is not Python. Run by pip through hatchling, or by hand: `python lbnode/build_hook.py`.

- lbnode/store/etcd.proto          -> etcd_pb2.py, etcd_pb2.pyi     (grpcio-tools)
- lbnode/dataplane/xdp/bpf/*.bpf.c -> *.bpf.o                       (clang, libbpf's headers)

The BPF object needs clang only here, never where lbnode runs. Without clang the package still builds: everything but
the XDP/tcx data plane works, and that one says what is missing.
"""

from __future__ import annotations

import importlib
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

PROTO = Path("lbnode/store/etcd.proto")
BPF = Path("lbnode/dataplane/xdp/bpf")


def compile_proto(root: Path) -> None:
    # The include path that protoc needs for its well-known types lies inside grpcio-tools.
    protoc = importlib.import_module("grpc_tools.protoc")
    code = protoc.main(["protoc", f"-I{root}", f"--python_out={root}", f"--pyi_out={root}", str(root / PROTO)])
    if code != 0:
        raise RuntimeError(f"{PROTO}: protoc ended with {code}; its message stands above")


def compile_bpf(root: Path) -> None:
    if shutil.which("clang") is None:
        sys.stderr.write("lbnode build: no clang (Debian: clang libbpf-dev); the XDP/tcx data plane is left out\n")
        return
    for source in sorted((root / BPF).glob("*.bpf.c")):
        compile_object(source, source.with_suffix(".o"))


def compile_object(source: Path, target: Path) -> None:
    multiarch = sysconfig.get_config_var("MULTIARCH") or "x86_64-linux-gnu"
    command = ["clang", "-O2", "-g", "-target", "bpf", "-mcpu=v3", "-Wall", "-Werror", f"-I/usr/include/{multiarch}"]
    done = subprocess.run([*command, "-c", source, "-o", target], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{source.name} does not compile (Debian: clang libbpf-dev):\n{done.stderr}")


def build(root: Path) -> None:
    compile_proto(root)
    compile_bpf(root)


if __name__ == "__main__":
    build(Path(__file__).resolve().parent.parent)
else:
    from hatchling.builders.hooks.plugin.interface import BuildHookInterface

    class CustomBuildHook(BuildHookInterface):  # type: ignore[misc]
        """hatchling calls this for wheels and for editable installs."""

        def initialize(self, version: str, build_data: dict[str, Any]) -> None:
            del version, build_data
            build(Path(self.root))
