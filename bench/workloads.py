"""What is measured: a Dockerfile with its context, and what happens before each timed build."""
import dataclasses, pathlib, random
from typing import Callable


@dataclasses.dataclass
class Workload:
    """`lay_out` makes the context. A cold build starts from an empty cache; before a warm one the
    same was built twice, then `edit` changed something. An `export` is of an image that is built
    already. With `memory` one more build is watched."""

    name: str
    says: str
    lay_out: Callable[[pathlib.Path], None]
    cold: bool = False
    edit: Callable[[pathlib.Path, int], None] | None = None
    export: str | None = None
    registry: str | None = None
    memory: bool = False


def tree(folder, files):
    for n in range(files):
        path = folder / "src" / ("d%03d" % (n // 100)) / ("f%05d.txt" % n)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("file %d\n" % n * 20)


def dockerfile(folder, text):
    (folder / "Dockerfile").write_text(text)


def steps(folder):
    dockerfile(folder, "FROM busybox\n" + "".join("RUN true # %d\n" % n for n in range(50)))


def copy(files):
    def lay_out(folder):
        tree(folder, files)
        dockerfile(folder, "FROM busybox\nCOPY src /src\n")
    return lay_out


def across(files):
    def lay_out(folder):
        tree(folder, files)
        (folder / "which").write_text("0")
        dockerfile(folder, "FROM busybox AS made\nCOPY src /src\n"
                   "FROM busybox\nCOPY which /which\nCOPY --from=made /src /src\n")
    return lay_out


def one_file(folder, run):
    (folder / "src" / "d000" / "f00000.txt").write_text("edit %d\n" % run)


def another_base(folder, run):
    (folder / "which").write_text("edit %d" % run)


def wide(folder):
    """Six stages that need nothing of each other; the longest takes three seconds."""
    text, copies = "", ""
    for stage, seconds in enumerate(([1, 1, 1], [2], [1.5, 1], [0.5, 2], [2.5], [1, 1])):
        text += "FROM busybox AS s%d\n" % stage
        text += "".join("RUN sleep %s; echo %d >> /out\n" % (s, n) for n, s in enumerate(seconds))
        copies += "COPY --from=s%d /out /out%d\n" % (stage, stage)
    dockerfile(folder, text + "FROM busybox\n" + copies)


def large(megabytes):
    def lay_out(folder):
        # No compressor here looks back as far as this repeats.
        pieces = [block(random.Random(seed), 1 << 20) for seed in range(32)]
        with open(folder / "data", "wb") as out:
            for n in range(megabytes):
                out.write(pieces[n % len(pieces)])
        dockerfile(folder, "FROM scratch\nCOPY data /data\n")
    return lay_out


def block(source, length):
    """Bytes that compress about as well as programs do: pieces of noise, letters and repeats."""
    letters, out = bytes(i % 23 + 97 for i in range(256)), bytearray()
    while len(out) < length:
        kind = source.random()
        noise = source.randbytes(source.randrange(16, 512))
        if kind < 0.2:
            out += noise
        elif kind < 0.5 or len(out) < 1024:
            out += noise.translate(letters)
        else:
            at = source.randrange(max(0, len(out) - 30000), len(out) - 512)
            out += out[at:at + source.randrange(16, 512)]
    return bytes(out[:length])


def pulled(address):
    def lay_out(folder):
        dockerfile(folder, "FROM %s/large\nRUN true\n" % address)
    return lay_out


def lay_out_large_image(folder, megabytes):
    """An image of four layers, each with a few large files and many small ones."""
    source, text = random.Random(2), "FROM busybox\n"
    for layer in range(4):
        top = folder / ("l%d" % layer)
        top.mkdir(parents=True)
        left, n = megabytes << 18, 0
        while left > 0:
            size = min(left, 8 << 20 if n % 50 == 0 else 60 << 10)
            (top / ("f%04d" % n)).write_bytes(block(source, size))
            left, n = left - size, n + 1
        text += "COPY l%d /l%d\n" % (layer, layer)
    dockerfile(folder, text)


def all_of(files, megabytes, pull_megabytes, registry):
    """All workloads; `registry` is the address of one that has an image `large`, or None."""
    found = [
        Workload("overhead", "50 RUN steps of `true`", steps, cold=True),
        Workload("warm", "nothing changed, %d files" % files, copy(files)),
        Workload("one-file", "one of %d files changed" % files, copy(files), edit=one_file),
        Workload("copy", "cold COPY of %d files" % files, copy(files), cold=True, memory=True),
        Workload("across", "COPY --from of %d files onto a changed base" % files, across(files),
                 edit=another_base),
        Workload("makespan", "six stages, critical path 3 s", wide, cold=True),
        Workload("gzip", "export of %d MB, gzip" % megabytes, large(megabytes), export="gzip",
                 memory=True),
        Workload("zstd", "export of %d MB, zstd" % megabytes, large(megabytes), export="zstd",
                 memory=True),
    ]
    if registry:
        found.append(Workload("pull", "pull and unpack %d MB" % pull_megabytes, pulled(registry),
                              cold=True, registry=registry, memory=True))
    return found
