//! The options, as typed values. `--help` and the option table of the README come from here.

use std::path::PathBuf;

use clap::{ArgAction, Parser, Subcommand, ValueEnum};
use snapcow::encode::Level;
#[cfg(feature = "openstack")]
use snapcow::units::parse_duration;
use snapcow::units::{ClusterSize, parse_size};

pub const EXIT_CODES: &str = "\
Exit codes:
  0  done                                5  network, after all retries
  1  anything else                       6  target refused, over quota, or exists
  2  wrong usage                         7  memory, disk or another local resource
  3  source refused, unknown, ambiguous  8  source changed, or its hash differs
  4  login or permission                 9  hash of the target differs
  10 verify: the disks differ            11 check: the image is damaged
  12 check: the image has leaks, its data are sound
  13 the new image is made, but its source could not be deleted; both are there
  130, 143, 129, 131  ended by SIGINT, SIGTERM, SIGHUP, SIGQUIT; 141  standard output was closed";

const LEVEL: &str = "fast, default, small, or the codec's own number [default: default]";
#[cfg(not(feature = "isal-sys"))]
const LEVEL_HELP: &str = "\
Level: fast, default, small, or a number: 1 to 12 for zlib (1 to 9 with a 4k window), 1 to 19 for zstd [default: default]";
#[cfg(feature = "isal-sys")]
const LEVEL_HELP: &str = "\
Level: fast (for zlib by ISA-L), default, small, or a number: 1 to 12 for zlib (1 to 9 with a 4k window), 1 to 19 for zstd \
[default: default]";

/// Turns a RAW OpenStack snapshot into a compact qcow2 image, without the raw image ever being on disk
#[derive(Debug, Parser)]
#[command(name = "snapcow", version, disable_help_subcommand = true)]
pub struct Args {
    #[command(subcommand)]
    pub command: Command,
    /// Say more (twice: even more)
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub verbose: u8,
    /// Say nothing but errors
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub quiet: bool,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Convert a raw disk to a qcow2 image
    Convert(Box<ConvertArgs>),
    /// Tell what a conversion would be: size, time, route, quota; nothing is made
    Plan(Box<super::plan::PlanArgs>),
    /// Put a compact image in the place of a raw one, under its name
    #[cfg(feature = "openstack")]
    Replace(Box<super::replace::ReplaceArgs>),
    /// Save an image from Glance to a file, as it is or as a raw disk
    #[cfg(feature = "openstack")]
    Download(Box<super::download::DownloadArgs>),
    /// Make a compact image of a server: stop, snapshot, start, convert, delete the raw image
    #[cfg(feature = "openstack")]
    Snapshot(Box<super::snapshot::SnapshotArgs>),
    /// Look whether this machine and this cloud can do the job, and what will be slow
    Doctor(Box<super::doctor::DoctorArgs>),
    /// Upload a file: a raw disk, compacted on the way, or a qcow2 image
    #[cfg(feature = "openstack")]
    Upload(Box<super::upload::UploadArgs>),
    /// Look at a qcow2 image from the header to the last refcount
    Check(Box<super::check::CheckArgs>),
    /// Compare two disks as their guests read them
    Verify(Box<super::verify::VerifyArgs>),
    /// List images and what they take, the largest first
    #[cfg(feature = "openstack")]
    List(Box<super::list::ListArgs>),
    /// Let other projects use an image
    #[cfg(feature = "openstack")]
    Share(Box<super::share::ShareArgs>),
    /// Take an image back from other projects
    #[cfg(feature = "openstack")]
    Unshare(Box<super::share::UnshareArgs>),
    /// Accept an image that another project shares with this one
    #[cfg(feature = "openstack")]
    Accept(Box<super::accept::AnswerArgs>),
    /// Reject an image that another project shares with this one
    #[cfg(feature = "openstack")]
    Reject(Box<super::accept::AnswerArgs>),
    /// List the projects that an image is shared with
    #[cfg(feature = "openstack")]
    Members(Box<super::members::MembersArgs>),
    /// Tell what is known of an image without reading it
    Info(Box<super::info::InfoArgs>),
    /// Show what a disk is made of: as a picture, a list, or the JSON of `qemu-img map`
    Map(Box<super::map::MapArgs>),
    /// Convert a generated snapshot in a Glance of its own: needs nothing, leaves nothing
    #[cfg(feature = "embedded")]
    Demo(DemoArgs),
    /// Time every stage and every route on a made-up disk, and tell what the limit is
    #[cfg(feature = "bench")]
    Bench(Box<super::bench::BenchArgs>),
    /// Print a script by which a shell completes commands and options
    Completions(super::completions::CompletionsArgs),
    /// Write the manual pages
    Man(super::man::ManArgs),
}

#[derive(Clone, Debug, Parser)]
pub struct ConvertArgs {
    /// PATH of a file or block device, - for standard input, or glance:NAME-or-ID
    pub source: String,
    /// PATH of a file, - for standard output, or glance:NAME for a new image
    pub target: String,

    /// Take the source for a raw disk even if it begins like an image format
    #[arg(short = 'f', long, value_name = "FORMAT", help_heading = "Format")]
    pub source_format: Option<SourceFormat>,
    /// Replace an existing file; the old one survives a failure
    #[arg(long, help_heading = "Safety")]
    pub force: bool,

    /// Delete the source image once the new one is proven to hold the same disk
    ///
    /// =unproven: also where Glance keeps no hash by which the source could be verified.
    #[cfg(feature = "openstack")]
    #[arg(long, value_name = "unproven", num_args = 0..=1, require_equals = true, default_missing_value = "proven",
        help_heading = "Safety", hide_possible_values = true)]
    pub delete_source: Option<super::delete_source::DeleteSource>,

    #[command(flatten)]
    pub how: ConversionArgs,
    #[cfg(feature = "openstack")]
    #[command(flatten)]
    pub image: ImageArgs,
    #[cfg(feature = "openstack")]
    #[command(flatten)]
    pub cloud: CloudPairArgs,
}

/// How a disk is converted, whatever command asks for it.
#[derive(Clone, Debug, Parser)]
pub struct ConversionArgs {
    /// Compression of the clusters; zstd needs QEMU 5.1 or newer to read
    #[arg(long, default_value = "zlib", help_heading = "Format")]
    pub compression: CompressionName,
    #[arg(long, value_name = "LEVEL", allow_negative_numbers = true, help = LEVEL, long_help = LEVEL_HELP, help_heading = "Format")]
    pub level: Option<Level>,
    /// Window of the deflate streams; 4k is QEMU's own, for readers that need it
    #[arg(long, default_value = "32k", value_name = "SIZE", help_heading = "Format")]
    pub deflate_window: DeflateWindow,
    /// Size of a cluster: a power of two from 512 to 2M
    #[arg(long, default_value = "64k", value_parser = cluster_size, value_name = "SIZE", help_heading = "Format")]
    pub cluster_size: ClusterSize,
    /// Version of the format: 1.1 is qcow2 version 3, 0.10 is version 2
    #[arg(long, default_value = "1.1", help_heading = "Format")]
    pub compat: CompatName,

    /// Leave out what the guest's filesystems have freed; the default is bit-exact
    ///
    /// Only what is proven free of ext2, ext3, ext4, XFS and swap, in partitions and in LVM; everything else is kept, and the
    /// reason is told. For machines that were shut down properly, above all.
    #[arg(long, help_heading = "Format")]
    pub trim: bool,

    /// Encoder threads [default: one a core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..), help_heading = "Resources")]
    pub threads: Option<u16>,
    /// Connections to read with, where Glance serves ranges [default: 2; 1 while an upload is open]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64), help_heading = "Resources")]
    pub connections: Option<u16>,
    /// Memory for everything but code and image map
    #[arg(long, default_value = "256MiB", value_parser = parse_size, value_name = "SIZE", help_heading = "Resources")]
    pub memory: u64,
    /// Disk for encoded clusters that memory does not hold
    ///
    /// SIZE, 0, or auto: half of what is free, 1 GiB always left.
    #[arg(long, default_value = "auto", value_parser = spool_disk, value_name = "SIZE", help_heading = "Resources")]
    pub spool_disk: SpoolDiskArg,
    /// Where that disk is [default: $TMPDIR, else /var/tmp]
    #[arg(long, value_name = "DIR", help_heading = "Resources")]
    pub spool_dir: Option<PathBuf>,

    /// Compare the source with the hash that Glance keeps of it
    #[arg(long, default_value = "on", help_heading = "Safety")]
    pub verify_source: OnOff,
    /// Decode every compressed cluster again and compare [default: on from or to Glance]
    ///
    /// By another library than the encoder, and before the cluster is placed. Off between local files, where it would
    /// show; on where Glance is, where it hardly does.
    #[arg(long, help_heading = "Safety")]
    pub verify_encode: Option<OnOff>,
    /// Make a digest of the guest's content [default: on from or to Glance and with --report]
    ///
    /// The one that `blksum` of blkhash makes, for summary and receipt.
    #[arg(long, help_heading = "Safety")]
    pub guest_digest: Option<OnOff>,
    /// Do not read what FILE calls zero
    ///
    /// JSON of `qemu-img map --output=json`, or of `rbd diff --format json` of a whole image. A hash that the source's
    /// service keeps proves it.
    #[arg(long, value_name = "FILE.json", help_heading = "Safety")]
    pub map: Option<PathBuf>,
    /// Take the map's word where there is no such hash: data that it calls zero are lost
    #[arg(long, requires = "map", conflicts_with = "state", help_heading = "Safety")]
    pub trust_map: bool,
    /// Keep in FILE what the first pass found, for the same command after a failure
    ///
    /// It then goes on with the second pass. The file goes when all is done.
    #[arg(long, value_name = "FILE", help_heading = "Safety")]
    pub state: Option<PathBuf>,
    /// Look up, probe, sample, print the plan as `snapcow plan` does, and stop
    #[arg(long, help_heading = "Safety")]
    pub dry_run: bool,

    /// Write a receipt, also of a failure
    #[arg(long, value_name = "FILE.json", help_heading = "Output")]
    pub report: Option<PathBuf>,
    /// How to show progress, on standard error
    #[arg(long, default_value = "auto", help_heading = "Output")]
    pub progress: ProgressMode,
}

#[cfg(feature = "openstack")]
#[derive(Clone, Debug, Parser)]
#[command(next_help_heading = "New image in Glance")]
pub struct ImageArgs {
    /// Set a property of the new image
    #[arg(long = "property", value_name = "K=V", value_parser = key_value)]
    pub properties: Vec<(String, String)>,
    /// Add a tag to the new image
    #[arg(long = "tag", value_name = "TAG")]
    pub tags: Vec<String>,
    /// Visibility of the new image
    #[arg(long, default_value = "private", value_name = "VISIBILITY", value_parser = ["private", "shared", "community", "public"])]
    pub visibility: String,
    /// Smallest root disk in GiB; at least the disk's own size
    #[arg(long, value_name = "GIB")]
    pub min_disk: Option<u64>,
    /// Smallest memory in MiB [default: the source's]
    #[arg(long, value_name = "MIB")]
    pub min_ram: Option<u64>,
    /// Store of the new image
    #[arg(long, value_name = "ID")]
    pub store: Option<String>,
    /// Take over properties and tags of a Glance source
    #[arg(long, default_value = "on")]
    pub copy_properties: OnOff,
    /// Permit a name that an image of the project has already
    #[arg(long)]
    pub allow_duplicate: bool,
}

/// The clouds of a command that has a source and a target.
#[cfg(feature = "openstack")]
#[derive(Clone, Debug, Default, Parser)]
#[command(next_help_heading = "Cloud")]
pub struct CloudPairArgs {
    #[command(flatten)]
    pub cloud: CloudArgs,
    /// The cloud of the source, if it is another one
    #[arg(long, value_name = "NAME")]
    pub source_cloud: Option<String>,
    /// The cloud of the target, if it is another one
    #[arg(long, value_name = "NAME")]
    pub target_cloud: Option<String>,
}

#[cfg(feature = "openstack")]
impl From<CloudArgs> for CloudPairArgs {
    fn from(cloud: CloudArgs) -> Self {
        Self { cloud, source_cloud: None, target_cloud: None }
    }
}

/// The cloud of a command, and how patient it is with it.
#[cfg(feature = "openstack")]
#[derive(Clone, Debug, Default, Parser)]
#[command(next_help_heading = "Cloud")]
pub struct CloudArgs {
    /// A cloud in clouds.yaml [default: $OS_CLOUD, the OS_* variables, or the only cloud there]
    #[arg(long, value_name = "NAME")]
    pub os_cloud: Option<String>,
    /// The region whose Glance is meant
    #[arg(long, value_name = "NAME")]
    pub os_region_name: Option<String>,
    /// The interface of the catalogue: public, internal or admin
    #[arg(long, value_name = "NAME", value_parser = ["public", "internal", "admin"])]
    pub os_interface: Option<String>,
    /// CA certificates to trust, in PEM form
    #[arg(long, value_name = "FILE")]
    pub os_cacert: Option<PathBuf>,
    /// Take any certificate
    #[arg(long)]
    pub insecure: bool,
    /// Further tries of what broke
    ///
    /// A request, range, download or upload counts as broken again if less than 2 MiB of anything new came in between.
    #[arg(long, value_name = "N", default_value = "5", value_parser = clap::value_parser!(u32).range(..=1000))]
    pub retries: u32,
    /// The longest time for those tries
    ///
    /// A lost answer is waited for as long.
    #[arg(long, value_name = "TIME", default_value = "15m", value_parser = parse_duration)]
    pub retry_time: std::time::Duration,
}

#[cfg(feature = "embedded")]
#[derive(Clone, Debug, Parser)]
pub struct DemoArgs {
    /// Let the demo's Glance serve ranges, as one with a filesystem store does
    #[arg(long)]
    pub ranges: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum SourceFormat {
    Raw,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum CompressionName {
    Zlib,
    Zstd,
    None,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum DeflateWindow {
    #[value(name = "32k")]
    Large,
    #[value(name = "4k")]
    Small,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum CompatName {
    #[value(name = "1.1")]
    V1_1,
    #[value(name = "0.10")]
    V0_10,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OnOff {
    On,
    Off,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ProgressMode {
    /// A bar on a terminal; elsewhere a line now and then, once a stage takes 10 seconds
    Auto,
    /// A bar, on a terminal
    Bar,
    /// A line for each stage, and now and then in long ones
    Plain,
    /// A JSON object for each stage and each second
    Json,
    /// Nothing
    None,
}

/// `--spool-disk`, as the library has it.
pub type SpoolDiskArg = snapcow::plan::SpoolDisk;

fn spool_disk(text: &str) -> Result<SpoolDiskArg, String> {
    if text == "auto" { Ok(SpoolDiskArg::Auto) } else { parse_size(text).map(SpoolDiskArg::Bytes) }
}

fn cluster_size(text: &str) -> Result<ClusterSize, String> {
    let bytes = parse_size(text)?;
    ClusterSize::from_bytes(bytes)
        .ok_or_else(|| format!("{bytes} bytes are not a power of two from 512 to 2M"))
}

#[cfg(feature = "openstack")]
fn key_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.into(), value.into())),
        _ => Err(format!("`{text}` is not of the form KEY=VALUE")),
    }
}

#[cfg(test)]
mod tests {
    use crate::cli::help;

    #[test]
    fn the_help_fits_what_the_readme_promises() {
        let mut command = help::command();
        let help = command.find_subcommand_mut("convert").unwrap().render_long_help().to_string();
        for option in ["--spool-disk", "--memory", "--cluster-size", "--report", "Exit codes"] {
            assert!(help.contains(option), "{option}");
        }
    }
}
