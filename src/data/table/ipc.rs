//! Arrow's own files (Feather version 2) and streams, batch by batch.

use std::{
    fs::File as Handle,
    io::{BufReader, Read, Seek},
};

use arrow::{
    array::RecordBatch,
    datatypes::SchemaRef,
    error::ArrowError,
    ipc::reader::{FileReader, StreamReader},
};

use super::{BATCH, Field, File, batch};
use crate::data::{Error, Result};

/// What a file of Arrow, unlike a stream, begins with.
const MAGIC: &[u8] = b"ARROW1";

type Input = BufReader<Handle>;

enum Reader {
    File(FileReader<Input>),
    Stream(StreamReader<Input>),
}

impl Reader {
    fn schema(&self) -> SchemaRef {
        match self {
            Self::File(reader) => reader.schema(),
            Self::Stream(reader) => reader.schema(),
        }
    }
}

impl Iterator for Reader {
    type Item = std::result::Result<RecordBatch, ArrowError>;

    fn next(&mut self) -> Option<Self::Item> {
        match self {
            Self::File(reader) => reader.next(),
            Self::Stream(reader) => reader.next(),
        }
    }
}

fn input(file: &File) -> Result<(Input, bool)> {
    let failed = |e: &std::io::Error| Error::file("reading", &file.path, e);
    let mut handle = Handle::open(&file.path).map_err(|e| failed(&e))?;
    let mut first = Vec::new();
    handle
        .by_ref()
        .take(MAGIC.len() as u64)
        .read_to_end(&mut first)
        .map_err(|e| failed(&e))?;
    handle.rewind().map_err(|e| failed(&e))?;
    Ok((BufReader::with_capacity(256 * 1024, handle), first == MAGIC))
}

fn reader(file: &File, wanted: Option<&[&str]>) -> Result<Reader> {
    let open = |places: Option<Vec<usize>>| -> Result<Reader> {
        let (input, is_file) = input(file)?;
        batch::guarded(file, || {
            let reader = if is_file {
                FileReader::try_new(input, places).map(Reader::File)
            } else {
                StreamReader::try_new(input, places).map(Reader::Stream)
            };
            reader.map_err(|e| {
                Error::Content(format!("{} is no readable Arrow file: {e}", file.name))
            })
        })
    };
    let whole = open(None)?;
    match wanted {
        None => Ok(whole),
        Some(wanted) => open(Some(batch::places(&whole.schema(), wanted))),
    }
}

fn next(file: &File, reader: &mut Reader) -> Result<Option<RecordBatch>> {
    let broken =
        |e: ArrowError| Error::Content(format!("{} is a broken Arrow file: {e}", file.name));
    batch::guarded(file, || reader.next().transpose().map_err(broken))
}

/// Columns and rows: the batches are read through, as no place says how many there are.
pub(super) fn look(file: &File) -> Result<(Vec<Field>, u64)> {
    let schema = reader(file, None)?.schema();
    let first: Vec<&str> = schema
        .fields()
        .iter()
        .take(1)
        .map(|f| f.name().as_str())
        .collect();
    let mut rows = 0;
    let mut reader = reader(file, Some(&first))?;
    while let Some(batch) = next(file, &mut reader)? {
        rows += batch.num_rows() as u64;
    }
    Ok((batch::fields(&schema), rows))
}

/// The batches of these columns, cut to our size.
pub(super) fn scan(
    file: &File,
    wanted: &[&str],
    each: &mut dyn FnMut(&RecordBatch) -> Result<()>,
) -> Result<()> {
    let mut reader = reader(file, Some(wanted))?;
    while let Some(batch) = next(file, &mut reader)? {
        for from in (0..batch.num_rows()).step_by(BATCH) {
            each(&batch.slice(from, BATCH.min(batch.num_rows() - from)))?;
        }
    }
    Ok(())
}
