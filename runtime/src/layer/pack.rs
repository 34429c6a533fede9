//! Compresses a layer tar while it is written, and takes the digests of both forms.
//!
//! gzip is made of independent blocks of a fixed size, each a member of its own (RFC 1952, 2.2),
//! which are compressed by as many threads as the pool of the caller has. zstd splits the stream by
//! itself, into jobs of a fixed size. The bytes never depend on the number of threads.

use std::{
    collections::VecDeque,
    io::{self, Write},
    mem,
    sync::mpsc,
};

use libdeflater::{CompressionLvl, Compressor};
use rbc_ir::Digest;
use sha2::Digest as _;

/// Plain bytes in one block of gzip. Starting anew that often costs half a percent, and the blocks
/// under way stay in the processor's cache.
const BLOCK: usize = 256 << 10;
/// libdeflate's level: the quickest. It packs programs about as well as zlib's level 3.
const GZIP_LEVEL: u8 = 1;
/// zstd's level: one below its own usual one, up to twice as quick, and smaller than gzip's usual one.
const ZSTD_LEVEL: u8 = 2;
/// Plain bytes that one thread of zstd gets at a time. What it takes of its own accord, four windows,
/// costs much memory for less than a percent.
const ZSTD_JOB: u32 = 1 << 20;
/// More threads than this are more memory and no more speed: reading and hashing cannot keep up.
const MAX_THREADS: usize = 16;

/// How a layer is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Packing {
    /// Not at all.
    None,
    /// gzip, which every tool reads.
    #[default]
    Gzip,
    /// zstd.
    Zstd,
}

impl Packing {
    /// Short name, as in `compression=gzip` and in the index.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "uncompressed",
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        }
    }

    /// Media type of a layer so packed (OCI image-spec, layer.md).
    pub fn media_type(self) -> &'static str {
        match self {
            Self::None => "application/vnd.oci.image.layer.v1.tar",
            Self::Gzip => "application/vnd.oci.image.layer.v1.tar+gzip",
            Self::Zstd => "application/vnd.oci.image.layer.v1.tar+zstd",
        }
    }
}

/// A way to compress that makes the same bytes every time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct Recipe {
    /// The form.
    pub packing: Packing,
    /// How hard to try: 0 to 9 for gzip, 0 to 22 for zstd; `None` for the usual level.
    pub level: Option<u8>,
}

impl Recipe {
    /// Its name in the index, with everything that the bytes depend on. What was made in another way
    /// is made anew rather than mistaken for it.
    pub fn name(self) -> String {
        match self.packing {
            Packing::None => "uncompressed".to_owned(),
            Packing::Gzip => format!("gzip-libdeflate-{}-256k", self.level()),
            Packing::Zstd => format!("zstd-{}-1m", self.level()),
        }
    }

    fn level(self) -> u8 {
        match (self.level, self.packing) {
            // Zero is zstd's word for its usual level.
            (None | Some(0), Packing::Zstd) => ZSTD_LEVEL,
            (Some(level), _) => level,
            (None, _) => GZIP_LEVEL,
        }
    }
}

impl From<Packing> for Recipe {
    fn from(packing: Packing) -> Self {
        Self { packing, level: None }
    }
}

/// What a [`Packer`] has made of a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packed {
    /// Digest of the plain tar.
    pub diff_id: Digest,
    /// Length of the plain tar in bytes.
    pub plain_size: u64,
}

/// Takes a plain tar and passes it on compressed. [`Packer::finish`] must be called.
pub struct Packer<W: Write> {
    hash: sha2::Sha256,
    plain_size: u64,
    form: Form<W>,
}

enum Form<W: Write> {
    None(W),
    Gzip(Gzip<W>),
    Zstd(zstd::stream::write::Encoder<'static, W>),
}

impl<W: Write> Packer<W> {
    /// A packer that writes to `out`.
    pub fn new(out: W, recipe: impl Into<Recipe>) -> io::Result<Self> {
        let recipe = recipe.into();
        let form = match recipe.packing {
            Packing::None => Form::None(out),
            Packing::Gzip => Form::Gzip(Gzip::new(out, recipe.level())?),
            Packing::Zstd => {
                let mut encoder = zstd::stream::write::Encoder::new(out, recipe.level().into())?;
                // Never none: without workers the stream is not cut into jobs at all.
                encoder.multithread(threads() as u32)?;
                encoder.set_parameter(zstd::zstd_safe::CParameter::JobSize(ZSTD_JOB))?;
                encoder.include_checksum(true)?;
                Form::Zstd(encoder)
            }
        };
        Ok(Self { hash: sha2::Sha256::new(), plain_size: 0, form })
    }

    /// Writes what is left and gives the output back.
    pub fn finish(self) -> io::Result<(W, Packed)> {
        let out = match self.form {
            Form::None(out) => out,
            Form::Gzip(gzip) => gzip.finish()?,
            Form::Zstd(encoder) => encoder.finish()?,
        };
        let diff_id = Digest::from_bytes(self.hash.finalize().into());
        Ok((out, Packed { diff_id, plain_size: self.plain_size }))
    }
}

impl<W: Write> Write for Packer<W> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        match &mut self.form {
            Form::None(out) => out.write_all(data)?,
            Form::Gzip(gzip) => gzip.write(data)?,
            Form::Zstd(encoder) => encoder.write_all(data)?,
        }
        self.hash.update(data);
        self.plain_size += data.len() as u64;
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Compresses blocks on rayon's pool and writes them in order.
struct Gzip<W> {
    out: W,
    /// The block being filled.
    block: Block,
    /// Blocks being compressed, first first.
    ahead: VecDeque<mpsc::Receiver<io::Result<Block>>>,
    /// Blocks that were written: their memory is used again.
    idle: Vec<Block>,
    began: bool,
    level: CompressionLvl,
}

impl<W: Write> Gzip<W> {
    fn new(out: W, level: u8) -> io::Result<Self> {
        let level = CompressionLvl::new(level.into()).map_err(|_| {
            io::Error::new(io::ErrorKind::InvalidInput, format!("gzip has no level {level}"))
        })?;
        let block = Block::new(level);
        Ok(Self { out, block, ahead: VecDeque::new(), idle: Vec::new(), began: false, level })
    }

    fn write(&mut self, mut data: &[u8]) -> io::Result<()> {
        while !data.is_empty() {
            let n = data.len().min(BLOCK - self.block.plain.len());
            self.block.plain.extend_from_slice(&data[..n]);
            data = &data[n..];
            if self.block.plain.len() == BLOCK {
                self.hand_over()?;
            }
        }
        Ok(())
    }

    /// Gives the block to another thread. Few blocks are under way at a time, so memory stays
    /// bounded however large the layer is.
    fn hand_over(&mut self) -> io::Result<()> {
        self.began = true;
        let next = self.idle.pop().unwrap_or_else(|| Block::new(self.level));
        let mut block = mem::replace(&mut self.block, next);
        let (sender, receiver) = mpsc::channel();
        rayon::spawn(move || {
            let packed = block.compress();
            // The receiver is gone only if writing failed, which is reported there.
            let _ = sender.send(packed.map(|()| block));
        });
        self.ahead.push_back(receiver);
        if self.ahead.len() > threads() + 1 {
            self.write_first()?;
        }
        Ok(())
    }

    fn write_first(&mut self) -> io::Result<()> {
        let Some(first) = self.ahead.pop_front() else { return Ok(()) };
        let died = |_| io::Error::other("a compressing thread died");
        let mut block = loop {
            match first.try_recv() {
                Ok(block) => break block?,
                Err(mpsc::TryRecvError::Disconnected) => return Err(died(mpsc::RecvError)),
                // A thread of the pool must not wait for the pool: it lends a hand instead.
                Err(mpsc::TryRecvError::Empty) => match rayon::yield_now() {
                    Some(rayon::Yield::Executed) => {}
                    Some(rayon::Yield::Idle) => std::thread::yield_now(),
                    None => break first.recv().map_err(died)??,
                },
            }
        };
        self.out.write_all(&block.packed[..block.length])?;
        block.plain.clear();
        self.idle.push(block);
        Ok(())
    }

    fn finish(mut self) -> io::Result<W> {
        // An empty stream is one empty member.
        if !self.block.plain.is_empty() || !self.began {
            self.hand_over()?;
        }
        while !self.ahead.is_empty() {
            self.write_first()?;
        }
        Ok(self.out)
    }
}

/// A block and what it takes to compress it.
struct Block {
    plain: Vec<u8>,
    /// One gzip member: no name, no time, unknown system.
    packed: Vec<u8>,
    /// Bytes of the member.
    length: usize,
    compressor: Compressor,
}

impl Block {
    fn new(level: CompressionLvl) -> Self {
        let compressor = Compressor::new(level);
        Self { plain: Vec::with_capacity(BLOCK), packed: Vec::new(), length: 0, compressor }
    }

    fn compress(&mut self) -> io::Result<()> {
        let bound = self.compressor.gzip_compress_bound(self.plain.len());
        if self.packed.len() < bound {
            self.packed.resize(bound, 0);
        }
        self.length = self
            .compressor
            .gzip_compress(&self.plain, &mut self.packed)
            .map_err(|_| io::Error::other("a block does not fit its bound"))?;
        Ok(())
    }
}

/// How many threads compress.
fn threads() -> usize {
    rayon::current_num_threads().clamp(1, MAX_THREADS)
}
