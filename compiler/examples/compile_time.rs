//! Times the compiler, the checks and the formatter on large Dockerfiles of several shapes, at a
//! size, twice and four times that size; a linear step has the ratios 2 and 4.
//! `bench/compile.sh` runs it.

use std::{
    fmt::Write,
    sync::Arc,
    time::{Duration, Instant},
};

use rbc_compiler::{
    CompileOptions, GitRequest, HttpRequest, ImageRequest, NamedContext, ResolveError,
    ResolvedHttp, ResolvedImage, Resolver, check, compile, fmt, syntax::SourceFile,
};
use rbc_ir::{Digest, ImageConfig, Selection};

/// A world in which everything is there and costs nothing to look up.
struct Everything;

impl Resolver for Everything {
    fn image(&self, request: &ImageRequest) -> Result<ResolvedImage, ResolveError> {
        Ok(ResolvedImage {
            reference: request.reference.clone(),
            manifest: Digest::of(b"manifest"),
            platform: request.platform.clone(),
            config: ImageConfig::default(),
        })
    }

    fn named_context(&self, _: &str) -> Result<NamedContext, ResolveError> {
        Ok(NamedContext::Local)
    }

    fn context_digest(&self, _: &str, _: &Selection) -> Result<Digest, ResolveError> {
        Ok(Digest::of(b"context"))
    }

    fn git(&self, _: &GitRequest) -> Result<String, ResolveError> {
        Ok("0".repeat(40))
    }

    fn http(&self, _: &HttpRequest) -> Result<ResolvedHttp, ResolveError> {
        Ok(ResolvedHttp { checksum: Digest::of(b"body"), mtime: 0 })
    }
}

/// A shape of Dockerfile: its name, the number of its parts, and how it is made of that many.
type Shape = (&'static str, usize, fn(usize) -> String);

const SHAPES: [Shape; 9] = [
    ("instructions, mixed", 10_000, |n| {
        repeat("FROM busybox\n", n, |n| match n % 5 {
            0 => format!("RUN echo {n} && \\\n    true\n"),
            1 => format!("ENV B={n}\n"),
            2 => "LABEL l=\"$B x\"\n".to_owned(),
            3 => "WORKDIR /srv/app\n".to_owned(),
            _ => format!("COPY a.txt b.txt /f{n}/\n"),
        })
    }),
    ("stages, chained", 1_000, |n| {
        repeat("FROM busybox AS s0\n", n, |n| {
            format!("FROM s{n} AS s{}\nRUN x\nCOPY --from=s{} /x /y\n", n + 1, n / 2)
        })
    }),
    ("stages, side by side", 1_000, |n| {
        let stages = repeat("", n, |n| format!("FROM busybox AS s{n}\nRUN make {n}\n"));
        repeat(&format!("{stages}FROM scratch\n"), n, |n| format!("COPY --from=s{n} /x /x{n}\n"))
    }),
    ("different variables", 10_000, |n| {
        repeat("FROM busybox\n", n, |n| format!("ENV NAME_{n}=$NAME_{}\n", n.saturating_sub(1)))
    }),
    ("undefined variables", 10_000, |n| {
        repeat("FROM busybox\nARG NAMED\n", n, |n| format!("LABEL a=$NAME{n}\n"))
    }),
    ("wrong instructions", 10_000, |n| repeat("FROM busybox\n", n, |n| format!("RUNN {n}\n"))),
    ("lines of one instruction", 10_000, |n| {
        repeat("FROM busybox\nRUN true", n, |n| format!(" && \\\n    echo {n}"))
    }),
    ("heredocs", 5_000, |n| {
        repeat("FROM busybox\n", n, |n| format!("COPY <<E{n} /f{n}\ntext $PATH\nE{n}\n"))
    }),
    ("cache and secret mounts", 5_000, |n| {
        repeat("FROM busybox\n", n, |n| {
            format!(
                "RUN --mount=type=cache,target=/c{n} --mount=type=secret,id=s{n} apt-get update\n"
            )
        })
    }),
];

fn repeat(head: &str, n: usize, part: impl Fn(usize) -> String) -> String {
    (0..n).fold(head.to_owned(), |mut text, n| {
        let _ = text.write_str(&part(n));
        text
    })
}

/// The best of three runs: what disturbs a run makes it slower only.
fn best(run: impl Fn()) -> Duration {
    let once = || {
        let begun = Instant::now();
        run();
        begun.elapsed()
    };
    [once(), once(), once()].into_iter().min().unwrap_or_default()
}

fn main() {
    println!("ms at the size (ratio at twice the size, at four times)");
    println!("{:<25} {:>6}  {:<17} {:<17} format", "", "size", "compile", "check");
    for (name, size, make) in SHAPES {
        let mut times: [Vec<Duration>; 3] = Default::default();
        for factor in [1, 2, 4] {
            let source = Arc::new(SourceFile::new("Dockerfile", make(size * factor)));
            let options = CompileOptions::default();
            times[0].push(best(|| drop(compile(&source, &options, &Everything))));
            times[1].push(best(|| drop(check(&source, &options, &Everything))));
            times[2].push(best(|| drop(fmt::format(&source))));
        }
        let [compile, check, format] = times.map(|list| {
            let [once, twice, four] = [0, 1, 2].map(|n| list[n].as_secs_f64() * 1e3);
            format!("{once:.0} ({:.1}, {:.1})", twice / once, four / once)
        });
        println!("{name:<25} {size:>6}  {compile:<17} {check:<17} {format}");
    }
}
