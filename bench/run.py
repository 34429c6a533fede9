#!/usr/bin/env python3
"""Times rbc beside installed peers in one run and prints ratios of medians.

    bench/run.py [--rbc PATH] [--runs N] [--quick] [--markdown FILE] [--svg FILE] [WORKLOAD ...]

Workloads are in workloads.py, builders in builders.py: Debian's buildah (`bud --layers`) and the
BuildKit in Debian's docker.io, whose daemon is started for the run with its own state (root). What is
not installed is skipped, saying so. The builders take turns, so that a busy moment of the machine
hits all. A ratio above 1 says how many times longer the peer takes. Absolute times are printed only to
judge the spread: they belong to the machine, not to the program. The last row compares the largest
resident set; of BuildKit it is that of its daemon alone, without containerd.
"""
import argparse, pathlib, shutil, statistics, sys, tempfile, time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "tests" / "conformance"))
import images  # noqa: E402  (the maker of the base image)
from builders import BuildKit, Buildah, Failed, Rbc  # noqa: E402
from chart import chart  # noqa: E402
from workloads import all_of  # noqa: E402


def timed(builder, workload, base, context, run):
    """Seconds of one build."""
    if workload.cold or (workload.export and run):
        builder.reset(base)
    if not workload.cold:
        if run == 0:
            builder.reset(base)
            builder.build(context, None)
        if workload.edit:
            workload.edit(context, run)
        else:
            builder.build(context, None)
    builder.begin()
    begin = time.monotonic()
    builder.build(context, workload.export)
    seconds = time.monotonic() - begin
    builder.end()
    return seconds


def measure(builders, workload, base, work, runs):
    """Seconds of each run by builder; no entry for one that cannot do it."""
    times = {builder.name: [] for builder in builders}
    contexts = {}
    for builder in builders:
        contexts[builder.name] = work / (workload.name + "-" + builder.name)
        contexts[builder.name].mkdir()
        workload.lay_out(contexts[builder.name])
    for run in range(runs):
        for builder in builders:
            if builder.name not in times:
                continue
            try:
                times[builder.name].append(timed(builder, workload, base, contexts[builder.name], run))
            except Failed as e:
                print("%s: %s is skipped: %s" % (workload.name, builder.name, e), file=sys.stderr)
                del times[builder.name]
    for context in contexts.values():
        shutil.rmtree(context)
    return times


def begin(work, rbc):
    """The builders that are there."""
    builders = [Rbc(rbc, work)]
    for kind, program in ((Buildah, "buildah"), (BuildKit, "dockerd")):
        try:
            if not shutil.which(program):
                raise Failed("%s is not installed" % program)
            builders.append(kind(work))
        except Failed as e:
            print("%s is skipped: %s" % (kind.name, e), file=sys.stderr)
    return builders


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--rbc", default="target/release/rbc")
    ap.add_argument("--runs", type=int, default=5)
    ap.add_argument("--quick", action="store_true", help="2,000 files and 64 MB in place of 20,000 and 1,024")
    ap.add_argument("--markdown", help="also write the table to this file")
    ap.add_argument("--svg", help="write a plot of the ratios to this file")
    ap.add_argument("workloads", nargs="*", metavar="WORKLOAD")
    opt = ap.parse_args()
    workloads = all_of(*((2000, 64) if opt.quick else (20000, 1024)))
    unknown = set(opt.workloads) - {w.name for w in workloads}
    if unknown:
        ap.error("no such workload: " + ", ".join(sorted(unknown)))
    with tempfile.TemporaryDirectory() as tmp:
        work = pathlib.Path(tmp)
        images.make(work / "images")
        base = work / "images" / "busybox.oci.tar"
        builders = begin(work, opt.rbc)
        try:
            ours = builders[0]
            ours.reset(base)
            ours.run([ours.program, "save", "--output", str(work / "images" / "busybox.docker.tar"), "busybox"])
            rows = []
            for workload in workloads:
                if not opt.workloads or workload.name in opt.workloads:
                    rows.append((workload, measure(builders, workload, base, work, opt.runs)))
                    print(row(*rows[-1], builders), file=sys.stderr)
        finally:
            for builder in builders:
                builder.close()
    names = [builder.name for builder in builders]
    text = "| workload | %s |\n|%s\n" % (" | ".join(names), " --- |" * (len(names) + 1))
    text += "".join(row(*r, builders) + "\n" for r in rows)
    text += "| peak memory | " + " | ".join(
        ["%d MB" % (builders[0].peak >> 10)]
        + ["%.1f × (%d MB)" % (b.peak / builders[0].peak, b.peak >> 10) for b in builders[1:]]) + " |\n"
    print(text, end="")
    if opt.markdown:
        pathlib.Path(opt.markdown).write_text(text)
    if opt.svg:
        bars = [(w.says, [(b.name, ratio(times, b, builders[0])) for b in builders[1:]]) for w, times in rows]
        bars.append(("peak memory", [(b.name, b.peak / builders[0].peak) for b in builders[1:]]))
        pathlib.Path(opt.svg).write_text(chart(bars))


def ratio(times, peer, ours):
    if peer.name not in times or ours.name not in times:
        return None
    return statistics.median(times[peer.name]) / statistics.median(times[ours.name])


def row(workload, times, builders):
    def cell(builder):
        if builder.name not in times:
            return "–"
        t = times[builder.name]
        spread = "%.3f s (%.3f–%.3f)" % (statistics.median(t), min(t), max(t))
        if builder is builders[0]:
            return spread
        of = ratio(times, builder, builders[0])
        return spread if of is None else "**%.1f ×** %s" % (of, spread)
    return "| %s | %s |" % (workload.says, " | ".join(cell(builder) for builder in builders))


if __name__ == "__main__":
    main()
