"""What is measured: a Dockerfile with its context, and what happens before each timed build."""
import dataclasses, pathlib, random
from typing import Callable


@dataclasses.dataclass
class Workload:
    """`lay_out` makes the context. A cold build starts from an empty cache; before a warm one the
    same was built twice, then `edit` changed something."""

    name: str
    says: str
    lay_out: Callable[[pathlib.Path], None]
    cold: bool = False
    edit: Callable[[pathlib.Path, int], None] | None = None
    export: str | None = None


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


def parallel(folder):
    dockerfile(folder, "FROM busybox AS a\nRUN sleep 2; echo a > /a\nFROM busybox AS b\n"
               "RUN sleep 2; echo b > /b\nFROM busybox\nCOPY --from=a /a /a\nCOPY --from=b /b /b\n")


def large(megabytes):
    def lay_out(folder):
        # Half of each block repeats, which is about what programs compress to.
        source = random.Random(1)
        with open(folder / "data", "wb") as out:
            for _ in range(megabytes):
                out.write(source.randbytes(1 << 19) + b"the same again \n" * (1 << 15))
        dockerfile(folder, "FROM scratch\nCOPY data /data\n")
    return lay_out


def all_of(files, megabytes):
    return [
        Workload("overhead", "50 RUN steps of `true`", steps, cold=True),
        Workload("warm", "nothing changed, %d files" % files, copy(files)),
        Workload("one-file", "one of %d files changed" % files, copy(files), edit=one_file),
        Workload("copy", "cold COPY of %d files" % files, copy(files), cold=True),
        Workload("across", "COPY --from of %d files onto a changed base" % files, across(files),
                 edit=another_base),
        Workload("makespan", "two stages of `sleep 2`", parallel, cold=True),
        Workload("gzip", "OCI archive of %d MB, gzip" % megabytes, large(megabytes), export="gzip"),
        Workload("zstd", "OCI archive of %d MB, zstd" % megabytes, large(megabytes), export="zstd"),
    ]
