//! Where the packages' sections lie: write once, read in ranges.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream::BoxStream;
use futures_util::{StreamExt, TryStreamExt};
use object_store::local::LocalFileSystem;
use object_store::{GetOptions, GetRange, ObjectStore, ObjectStoreExt, WriteMultipart};
use tokio::io::{AsyncReadExt, AsyncSeekExt};

/// Bytes copied at once.
const PART_BYTES: usize = 8 * 1024 * 1024;
/// Parts on their way at once.
const PARTS_MAX: usize = 2;

/// The blob folder.
#[derive(Debug, Clone)]
pub struct Blobs {
    store: Arc<dyn ObjectStore>,
}

/// A blob cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    /// The folder or store failed.
    #[error("the blob store failed")]
    Store(#[from] object_store::Error),
    /// The source failed.
    #[error("a file that was uploaded cannot be read")]
    Source(#[from] std::io::Error),
}

impl Blobs {
    /// The blobs in a local folder.
    ///
    /// # Errors
    ///
    /// [`BlobError`] when there is no such folder.
    pub fn local(folder: &Path) -> Result<Self, BlobError> {
        let store = LocalFileSystem::new_with_prefix(folder)?.with_fsync(true);
        Ok(Self {
            store: Arc::new(store),
        })
    }

    /// Copies what follows `offset` in a file to a blob. It appears whole or not at all.
    ///
    /// # Errors
    ///
    /// [`BlobError`].
    pub async fn put(&self, name: &str, file: &Path, offset: u64) -> Result<(), BlobError> {
        let mut source = tokio::fs::File::open(file).await?;
        source.seek(std::io::SeekFrom::Start(offset)).await?;
        let upload = self.store.put_multipart(&name.into()).await?;
        let mut writer = WriteMultipart::new_with_chunk_size(upload, PART_BYTES);
        let mut part = vec![0; PART_BYTES];
        loop {
            let read = source.read(&mut part).await?;
            if read == 0 {
                break;
            }
            writer.wait_for_capacity(PARTS_MAX).await?;
            writer.write(&part[..read]);
        }
        writer.finish().await?;
        Ok(())
    }

    /// A part of a blob, as a stream.
    ///
    /// # Errors
    ///
    /// [`BlobError`] when there is no such blob, or it is shorter.
    pub async fn read(
        &self,
        name: &str,
        range: Range<u64>,
    ) -> Result<BoxStream<'static, Result<Bytes, BlobError>>, BlobError> {
        if range.is_empty() {
            return Ok(futures_util::stream::empty().boxed());
        }
        let options = GetOptions {
            range: Some(GetRange::Bounded(range)),
            ..GetOptions::default()
        };
        let found = self.store.get_opts(&name.into(), options).await?;
        Ok(found.into_stream().map_err(BlobError::from).boxed())
    }
}
