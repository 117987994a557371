#!/usr/bin/env python3
"""Lets PyTorch's Linux wheel be imported where no CUDA library is installed.

The wheel links a dozen CUDA libraries (2 GB of further wheels) that no CPU computation calls. For each one that
is missing this builds a small shared library with the names and symbol versions torch asks for; every function
in it names itself and aborts, except CUPTI's, which the profiler asks at start and which report an error.
Only for the tests' own environment on a machine without a GPU.

usage: cuda_stand_ins.py SITE_PACKAGES
"""
import collections
import pathlib
import re
import subprocess
import sys
import tempfile

CUDA_LIBRARY = re.compile(r"lib(cu|nccl|nv)")
CUDA_FUNCTION = re.compile(r"(cu[A-Za-z]|nccl|nvrtc|nvshmem|__cuda|__nvrtc)")


def output_of(*command):
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def wanted_by(library):
    """The CUDA libraries one library of torch links, the versions it wants of each, its undefined symbols."""
    linked = {name for name in re.findall(r"NEEDED.*\[(.*?)\]", output_of("readelf", "-dW", library))
              if CUDA_LIBRARY.match(name)}
    versions, current = collections.defaultdict(set), None
    for line in output_of("readelf", "-VW", library).splitlines():
        if found := re.search(r"File: (\S+)", line):
            current = found.group(1)
        if current and (found := re.search(r"Name: (\S+)\s+Flags", line)):
            versions[current].add(found.group(1))
    undefined = {line.split()[0] for line in output_of("nm", "-D", "-u", "-P", library).splitlines() if line}
    return linked, versions, undefined


def build(path, functions, versions):
    """functions: (name, version or None) pairs; versions: every version node that must exist."""
    action = "return 100;" if "cupti" in path.name else "die(__func__);"
    source = ["#include <stdlib.h>", "#include <string.h>", "#include <unistd.h>",
              'static void die(const char *name) { if (write(2, name, strlen(name)) > 0) abort(); abort(); }',
              "void *modelforge_stand_in(void) { return (void *)die; }"]
    source += [f"int {name}(void) {{ {action} return 0; }}" for name in sorted({name for name, _ in functions})]
    script = []
    for index, version in enumerate(sorted(versions)):
        names = [f"modelforge_version_{index}"] + sorted(name for name, v in functions if v == version)
        script.append(f"{version} {{ global: {' '.join(name + ';' for name in names)} }};")
    with tempfile.TemporaryDirectory() as folder:
        code, map_file = pathlib.Path(folder, "stand_in.c"), pathlib.Path(folder, "versions.map")
        code.write_text("\n".join(source) + "\n")
        map_file.write_text("\n".join(script) + "\n")
        command = ["gcc", "-shared", "-fPIC", "-O1", "-w", str(code), "-o", str(path),
                   f"-Wl,-soname,{path.name}"]
        if script:
            command.append(f"-Wl,--version-script={map_file}")
        subprocess.run(command, check=True)


def main():
    site = pathlib.Path(sys.argv[1])
    libraries = sorted(site.glob("torch/lib/*.so*"))
    own = {library.name for library in libraries}
    target = next(iter(site.glob("nvidia/cu1*/lib")))
    linked, versions, undefined = set(), collections.defaultdict(set), set()
    for library in libraries:
        names, wanted, symbols = wanted_by(str(library))
        linked |= names - own
        undefined |= symbols
        for name, nodes in wanted.items():
            versions[name] |= nodes
    missing = sorted(name for name in linked if not (target / name).exists())
    if not missing:
        return
    functions = collections.defaultdict(set)
    for symbol in undefined:
        name, _, version = symbol.partition("@")
        version = version.lstrip("@")
        if not CUDA_FUNCTION.match(name):
            continue
        home = next((library for library in linked if version and version in versions[library]), missing[0])
        functions[home].add((name, version or None))
    for name in missing:
        build(target / name, functions[name], versions[name])


if __name__ == "__main__":
    main()
