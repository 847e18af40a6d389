//! Parquet, row group by row group.

use arrow::array::RecordBatch;
use parquet::arrow::{
    ProjectionMask,
    arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder},
};

use super::{BATCH, Field, File, batch};
use crate::data::{Error, Result};

fn builder(file: &File) -> Result<ParquetRecordBatchReaderBuilder<std::fs::File>> {
    let handle =
        std::fs::File::open(&file.path).map_err(|e| Error::file("opening", &file.path, &e))?;
    batch::guarded(file, || {
        ParquetRecordBatchReaderBuilder::try_new(handle)
            .map_err(|e| Error::Content(format!("{} is no readable Parquet file: {e}", file.name)))
    })
}

/// Columns and rows, from the footer.
pub(super) fn look(file: &File) -> Result<(Vec<Field>, u64)> {
    let builder = builder(file)?;
    let rows = builder.metadata().file_metadata().num_rows();
    Ok((
        batch::fields(builder.schema()),
        u64::try_from(rows).unwrap_or(0),
    ))
}

/// The batches of these columns.
pub(super) fn scan(
    file: &File,
    wanted: &[&str],
    each: &mut dyn FnMut(&RecordBatch) -> Result<()>,
) -> Result<()> {
    let builder = builder(file)?;
    let roots = batch::places(builder.schema(), wanted);
    let mask = ProjectionMask::roots(builder.parquet_schema(), roots);
    let broken = |e: &dyn std::fmt::Display| {
        Error::Content(format!("{} is a broken Parquet file: {e}", file.name))
    };
    let open = || {
        let builder = builder.with_projection(mask).with_batch_size(BATCH);
        builder.build().map_err(|e| broken(&e))
    };
    let mut reader: ParquetRecordBatchReader = batch::guarded(file, open)?;
    let mut next = || batch::guarded(file, || reader.next().transpose().map_err(|e| broken(&e)));
    while let Some(batch) = next()? {
        each(&batch)?;
    }
    Ok(())
}
