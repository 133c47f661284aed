//! The spool, beside the stages. Takes encoded clusters in guest order and gives them back in
//! guest order as often as asked. Holds at most its memory share, then at most its disk share in
//! one unlinked temporary file.
//!
//! It is a first-in, first-out ring of blocks. New clusters go to memory; the oldest blocks move
//! to disk when memory is full; when the disk is full too, the lowest clusters are let go, so that
//! whoever reads the source again can stop at the first cluster that is still here.

mod block;
mod disk;

use std::collections::VecDeque;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::error::{Error, Kind, Result, Stage};
use crate::units::{ClusterIndex, ClusterSize, Human};
use block::{Block, Place, RECORD_HEADER_BYTES, Records};
use disk::{Disk, Submitted};

/// A source that cannot wait is kept waiting for the spool's disk no longer than this for each MiB of
/// blocks on average. A block takes at least its own size of guest bytes, so 2 MiB/s are held with room to
/// spare even where nothing gets smaller.
const DISK_PATIENCE_PER_MIB: Duration = Duration::from_millis(400);
/// Patience that was not used is saved up to this much, for a disk that is fast but for a hiccup.
const DISK_PATIENCE_MAX: Duration = Duration::from_millis(1200);

/// Usual size of a block, in bytes; larger only for clusters of 2 MiB.
pub const BLOCK_BYTES: usize = 1 << 20;

/// What the spool may use.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Memory in bytes; below two blocks counts as two blocks.
    pub memory_bytes: u64,
    /// Disk in bytes; less than two blocks counts as none.
    pub disk_bytes: u64,
    /// Where the temporary file is made.
    pub dir: PathBuf,
    /// Whether clusters may be let go because the source can be read again.
    pub may_drop: bool,
}

/// What the spool has seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SpoolStats {
    /// Stored bytes of all clusters that came.
    pub encoded_bytes: u64,
    /// Stored bytes that were let go.
    pub dropped_bytes: u64,
    /// Bytes written to the temporary file.
    pub disk_written_bytes: u64,
    /// Blocks that all clusters would have taken.
    pub blocks: u64,
    /// Whether the disk was given up because it failed or was too slow.
    pub disk_given_up: bool,
}

/// The spool; see the module's text.
#[derive(Debug)]
pub struct Spool {
    limits: Limits,
    block_bytes: usize,
    memory_blocks_max: usize,
    memory_blocks: usize,
    free: Vec<Vec<u8>>,
    /// Lowest clusters first; those on disk are lower than those in memory.
    blocks: VecDeque<Block>,
    disk: Option<Disk>,
    open: Option<Block>,
    /// How long the disk may be waited for from now on.
    patience: Duration,
    stats: SpoolStats,
}

impl Spool {
    /// An empty spool; its file is made when it is first needed.
    pub fn new(limits: Limits, cluster_size: ClusterSize) -> Self {
        let block_bytes = Self::block_bytes(cluster_size);
        let memory_blocks_max =
            usize::try_from(limits.memory_bytes / block_bytes as u64).unwrap_or(usize::MAX).max(2);
        let slots = limits.disk_bytes / block_bytes as u64;
        let disk = (slots >= 2).then(|| Disk::new(limits.dir.clone(), slots, block_bytes));
        Self {
            limits,
            block_bytes,
            memory_blocks_max,
            memory_blocks: 0,
            free: Vec::new(),
            blocks: VecDeque::new(),
            disk,
            open: None,
            patience: DISK_PATIENCE_MAX,
            stats: SpoolStats::default(),
        }
    }

    /// Bytes of one block for a cluster size: at least one whole record.
    pub fn block_bytes(cluster_size: ClusterSize) -> usize {
        BLOCK_BYTES.max(cluster_size.size() + RECORD_HEADER_BYTES).next_multiple_of(4096)
    }

    /// Takes the next cluster in guest order.
    ///
    /// # Errors
    /// [`Kind::Local`] if the limits are reached and nothing may be let go; it names the options.
    pub fn append(&mut self, cluster: ClusterIndex, stored: &[u8]) -> Result<()> {
        let fits = self.open.as_ref().is_some_and(|open| open.has_room_for(stored.len(), self.block_bytes));
        if !fits {
            self.seal();
            let memory = self.memory_block()?;
            self.open = Some(Block::new(cluster, memory));
            self.stats.blocks += 1;
        }
        if let Some(open) = &mut self.open {
            open.push(cluster, stored);
        }
        self.stats.encoded_bytes += stored.len() as u64;
        Ok(())
    }

    /// Ends the survey: nothing comes after this, and what is on its way to disk has arrived.
    ///
    /// # Errors
    /// [`Kind::Local`] if the disk fails and nothing may be let go.
    pub fn finish(&mut self) -> Result<()> {
        self.seal();
        while self.disk.as_ref().is_some_and(Disk::is_busy) {
            self.reap(None)?;
        }
        Ok(())
    }

    /// The lowest cluster that is still here, if any is.
    pub fn first_held(&self) -> Option<ClusterIndex> {
        self.blocks.front().or(self.open.as_ref()).map(Block::first)
    }

    /// Whether clusters have been let go.
    pub fn has_dropped(&self) -> bool {
        self.stats.dropped_bytes > 0
    }

    /// What the spool has seen so far.
    pub fn stats(&self) -> SpoolStats {
        SpoolStats {
            disk_written_bytes: self.disk.as_ref().map_or(0, Disk::written) + self.stats.disk_written_bytes,
            ..self.stats
        }
    }

    /// The clusters that are still here, in guest order. Can be called again.
    pub fn read(&self) -> impl Iterator<Item = Result<(ClusterIndex, Bytes)>> + '_ {
        self.blocks.iter().flat_map(|block| Records::new(self.block_bytes_of(block)))
    }

    fn block_bytes_of(&self, block: &Block) -> Result<Bytes> {
        match (&block.place, &self.disk) {
            (Place::Memory(bytes), _) => Ok(bytes.clone()),
            (Place::Disk(slot), Some(disk)) => disk.read(*slot, block.len()),
            (Place::Disk(_), None) => {
                Err(Error::new(Stage::Spool, Kind::Other, "read a block of a spool file that was given up"))
            }
        }
    }

    fn seal(&mut self) {
        if let Some(block) = self.open.take() {
            self.blocks.push_back(block.sealed());
        }
    }

    /// Memory for one more block: free, new, or taken from the oldest block in memory.
    fn memory_block(&mut self) -> Result<Vec<u8>> {
        loop {
            self.reap(Some(Duration::ZERO))?;
            if let Some(memory) = self.free.pop() {
                return Ok(memory);
            }
            if self.memory_blocks < self.memory_blocks_max {
                self.memory_blocks += 1;
                return Ok(Vec::with_capacity(self.block_bytes));
            }
            self.make_room()?;
        }
    }

    /// Moves the oldest block in memory to disk, or lets the lowest clusters go.
    fn make_room(&mut self) -> Result<()> {
        let Some(disk) = &mut self.disk else {
            return self.drop_lowest();
        };
        if disk.is_busy() {
            let patience = self.limits.may_drop.then_some(self.patience);
            let begin = Instant::now();
            if self.reap(patience)? {
                self.patience = self.patience.saturating_sub(begin.elapsed());
                return Ok(());
            }
            return self.give_up_disk();
        }
        let Some(oldest) = self.blocks.iter_mut().find(|block| matches!(block.place, Place::Memory(_)))
        else {
            return self.drop_lowest();
        };
        let Place::Memory(bytes) = &oldest.place else { return Ok(()) };
        match disk.submit(bytes.clone()) {
            Submitted::Slot(slot) => {
                oldest.place = Place::Disk(slot);
                let earned = DISK_PATIENCE_PER_MIB.mul_f64(self.block_bytes as f64 / (1 << 20) as f64);
                self.patience = (self.patience + earned).min(DISK_PATIENCE_MAX);
                Ok(())
            }
            Submitted::Full => self.drop_lowest(),
            Submitted::Failed => self.give_up_disk(),
        }
    }

    /// Takes back the memory of blocks that have reached the disk. Waits at most `patience`
    /// (without end if `None`) for one; false if none came in time.
    fn reap(&mut self, patience: Option<Duration>) -> Result<bool> {
        let Some(disk) = &mut self.disk else { return Ok(true) };
        match disk.wait(patience) {
            disk::Waited::Nothing => Ok(false),
            disk::Waited::Done(bytes) => {
                self.recycle(bytes);
                Ok(true)
            }
            disk::Waited::Failed => self.give_up_disk().map(|()| true),
        }
    }

    fn recycle(&mut self, bytes: Bytes) {
        match bytes.try_into_mut() {
            Ok(memory) => {
                let mut memory = Vec::from(memory);
                memory.clear();
                self.free.push(memory);
            }
            // Somebody still reads it; its memory goes when they are done.
            Err(_) => self.memory_blocks -= 1,
        }
    }

    fn drop_lowest(&mut self) -> Result<()> {
        if !self.limits.may_drop {
            return Err(self.overflow());
        }
        if let Some(block) = self.blocks.pop_front() {
            self.forget(block);
        }
        Ok(())
    }

    fn forget(&mut self, block: Block) {
        self.stats.dropped_bytes += block.stored_bytes();
        match block.place {
            Place::Memory(bytes) => self.recycle(bytes),
            Place::Disk(slot) => {
                if let Some(disk) = &mut self.disk {
                    disk.release(slot);
                }
            }
        }
    }

    /// The disk failed or is too slow: what lies on it is let go, and memory alone goes on.
    /// Without leave to let go that is the end.
    fn give_up_disk(&mut self) -> Result<()> {
        let Some(disk) = self.disk.take() else { return Ok(()) };
        let on_disk = self.blocks.front().is_some_and(|block| matches!(block.place, Place::Disk(_)));
        if on_disk && !self.limits.may_drop {
            let what = format!("write to the spool file in {}", self.limits.dir.display());
            return Err(Error::new(Stage::Spool, Kind::Local, what)
                .advise("give a directory on a disk that works with --spool-dir, or a larger --memory"));
        }
        tracing::warn!("the spool's disk failed or cannot keep up; going on with memory alone");
        self.stats.disk_written_bytes += disk.written();
        self.stats.disk_given_up = true;
        // Memory on its way to disk is not coming back.
        self.memory_blocks -= disk.in_flight();
        while self.blocks.front().is_some_and(|block| matches!(block.place, Place::Disk(_))) {
            if let Some(block) = self.blocks.pop_front() {
                self.stats.dropped_bytes += block.stored_bytes();
            }
        }
        Ok(())
    }

    fn overflow(&self) -> Error {
        Error::new(
            Stage::Spool,
            Kind::Local,
            format!(
                "the spool is full after {} of encoded clusters, and the source cannot be read again",
                Human(self.stats.encoded_bytes)
            ),
        )
        .advise("allow more with --spool-disk (and --spool-dir) or --memory, or write to a file")
    }
}

#[cfg(test)]
mod tests;
