//! Bounds on everything that comes off the wire, each with its reason.

/// Longest stored payload in bytes. One camera picture or batch; a socket reserves this much before a byte arrives.
pub const PAYLOAD_BYTES_MAX: usize = 1 << 20;
/// Longest batch payload after decompression in bytes: 256 samples of 28 f64 are 64 kB.
pub const BATCH_BYTES_MAX: usize = 1 << 20;
/// Longest control payload (hello, marks, errors, ...) in bytes.
pub const CONTROL_BYTES_MAX: usize = 128 << 10;
/// Most samples of a batch. At 200 Hz that is more than a second: longer batches only delay acknowledgements.
pub const SAMPLES_MAX: usize = 256;
/// Most elements of one sample of numbers.
pub const WIDTH_MAX: u32 = 4096;
/// Most bytes of a picture once decoded: 4096 x 4096 x 3.
pub const PIXEL_BYTES_MAX: u32 = 4096 * 4096 * 3;
/// Most streams of a session; bounds the memory of its positions.
pub const STREAMS_MAX: usize = 256;
/// Longest feature, element or unit name in bytes.
pub const NAME_BYTES_MAX: usize = 128;
/// Longest language instruction in bytes.
pub const INSTRUCTION_BYTES_MAX: usize = 64 << 10;
/// Batches of this many samples and more are compressed; shorter ones gain nothing.
pub const COMPRESS_FROM_SAMPLES: usize = 16;
/// zstd level of batches on the wire: keeps over nine tenths of level 1's ratio for about two thirds of its time.
pub const ZSTD_LEVEL: i32 = -1;
/// Features that the exporter writes itself; a stream may not use these names.
pub const FEATURES_RESERVED: [&str; 8] =
    ["timestamp", "frame_index", "episode_index", "index", "task_index", "task", "capture_time_ns", "sample_flags"];
