use std::io::Cursor;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use mp4_atom::ReadFrom;
use proptest::collection::vec;
use proptest::prelude::*;

use super::boxes::{put, put_full, put_u32};
use super::demux::{Mp4, fuzz_demux};
use super::mux::{self, Format, Slot, TICKS_PER_FRAME, Unit};
use super::{Codec, Mp4Error};

const AVCC: [u8; 13] = [1, 0x42, 0, 0x1e, 0xff, 0xe1, 0, 1, 0x67, 1, 0, 1, 0x68];
const AV1C: [u8; 4] = [0x81, 0x05, 0x0c, 0];

fn format(codec: Codec, fps: u32) -> Format<'static> {
    let config: &[u8] = match codec {
        Codec::H264 => &AVCC,
        Codec::Av1 => &AV1C,
        _ => &[],
    };
    Format { codec, width: 64, height: 48, fps, config }
}

fn muxed(format: Format<'_>, pictures: &[(Vec<u8>, bool, u32)]) -> Vec<u8> {
    let units: Vec<Unit<'_>> = pictures
        .iter()
        .map(|(data, key, presentation)| Unit { data, key: *key, presentation: *presentation })
        .collect();
    let mut out = Vec::new();
    mux::write(&mut out, format, &units).unwrap();
    out
}

fn open(bytes: &[u8]) -> Result<Mp4<Cursor<&[u8]>>, Mp4Error> {
    Mp4::from_reader(Cursor::new(bytes))
}

fn shared(path: &str) -> PathBuf {
    let root = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/data"));
    assert!(root.is_dir(), "put the shared folder beside the checkout: {} is not there", root.display());
    root.join(path)
}

/// Codings with an order of showing that the coding allows: JPEG and AV1 are shown as they are decoded.
fn any_track() -> impl Strategy<Value = (Codec, Vec<(Vec<u8>, bool, u32)>)> {
    let pictures = (vec((vec(any::<u8>(), 1..64), any::<bool>()), 1..40), any::<u64>());
    (prop_oneof![Just(Codec::Mjpeg), Just(Codec::H264), Just(Codec::Av1)], pictures).prop_map(
        |(codec, (pictures, seed))| {
            let mut order: Vec<u32> = (0..pictures.len() as u32).collect();
            if codec == Codec::H264 {
                // Any permutation that the seed gives; encoders only use local ones.
                let mut state = seed;
                for at in (1..order.len()).rev() {
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    order.swap(at, (state >> 33) as usize % (at + 1));
                }
            }
            let pictures = pictures
                .into_iter()
                .zip(order)
                .map(|((data, key), row)| (data, key || codec == Codec::Mjpeg, row))
                .collect();
            (codec, pictures)
        },
    )
}

proptest! {
    /// What was muxed comes back: bytes, keys, and picture k at exactly k frames.
    #[test]
    fn demux_gives_back_what_mux_was_given((codec, pictures) in any_track(), fps in 1u32..1000) {
        let bytes = muxed(format(codec, fps), &pictures);
        let mut mp4 = open(&bytes).unwrap();
        prop_assert!(mp4.fault().is_none());
        let track = mp4.track();
        prop_assert_eq!((track.codec, track.width, track.height), (codec, 64, 48));
        prop_assert_eq!(track.timescale, fps * 512);
        if codec != Codec::Mjpeg {
            prop_assert_eq!(&track.config[..], format(codec, fps).config);
        }
        prop_assert_eq!(mp4.samples().len(), pictures.len());
        prop_assert_eq!(mp4.average_fps().unwrap().round(), f64::from(fps));
        for (number, (data, key, row)) in pictures.iter().enumerate() {
            let sample = mp4.samples()[number];
            prop_assert_eq!(sample.pts, i64::from(row * TICKS_PER_FRAME));
            prop_assert_eq!(sample.key, *key);
            prop_assert!(sample.shown);
            prop_assert_eq!(&mp4.read_sample(number).unwrap()[..], &data[..]);
        }
    }

    /// A file cut anywhere gives exactly the samples before the cut, or no track at all.
    #[test]
    fn a_cut_file_gives_its_whole_samples_and_names_the_first_that_is_not(
        (codec, pictures) in any_track(), cut in any::<prop::sample::Index>(),
    ) {
        let bytes = muxed(format(codec, 30), &pictures);
        let data: usize = pictures.iter().map(|(data, ..)| data.len()).sum();
        let index = bytes.len() - data;
        let cut = cut.index(bytes.len());
        match open(&bytes[..cut]) {
            Err(_) => prop_assert!(cut < index),
            Ok(mut mp4) => {
                let (mut left, mut whole) = ((cut + 8).saturating_sub(index + 8), 0);
                for (data, ..) in &pictures {
                    if data.len() > left { break; }
                    left -= data.len();
                    whole += 1;
                }
                prop_assert_eq!(mp4.whole(), whole);
                let named = matches!(mp4.fault(), Some(Mp4Error::Cut { sample, .. }) if *sample == whole);
                prop_assert!(named, "{:?}", mp4.fault());
                for (number, picture) in pictures.iter().take(whole).enumerate() {
                    prop_assert_eq!(&mp4.read_sample(number).unwrap()[..], &picture.0[..]);
                }
                let refused = matches!(mp4.read_sample(whole), Err(Mp4Error::Cut { .. }));
                prop_assert!(refused);
            }
        }
    }

    /// Damage in any place never panics and never gives bytes that the file does not have.
    #[test]
    fn demux_survives_damage((codec, pictures) in any_track(), hits in vec((any::<prop::sample::Index>(), any::<u8>()), 1..12)) {
        let mut bytes = muxed(format(codec, 30), &pictures);
        for (place, value) in hits {
            let place = place.index(bytes.len());
            bytes[place] = value;
        }
        fuzz_demux(&bytes);
        fuzz_demux(&fragmented(&pictures, 3, &bytes));
    }

    #[test]
    fn demux_survives_noise(bytes in vec(any::<u8>(), 0..512)) {
        fuzz_demux(&bytes);
    }

    /// A fragmented file reads as the plain one does.
    #[test]
    fn fragments_give_the_same_samples_as_tables((codec, pictures) in any_track(), per_fragment in 1usize..9) {
        let plain = muxed(format(codec, 30), &pictures);
        let split = fragmented(&pictures, per_fragment, &plain);
        let (mut a, mut b) = (open(&plain).unwrap(), open(&split).unwrap());
        prop_assert!(b.track().fragmented && b.fault().is_none());
        prop_assert_eq!(a.samples().len(), b.samples().len());
        prop_assert_eq!(a.average_fps(), b.average_fps());
        for number in 0..pictures.len() {
            let (one, two) = (a.samples()[number], b.samples()[number]);
            prop_assert_eq!((one.size, one.dts, one.pts, one.key, one.shown), (two.size, two.dts, two.pts, two.key, two.shown));
            prop_assert_eq!(a.read_sample(number).unwrap(), b.read_sample(number).unwrap());
        }
    }
}

/// The same track in fragments: the plain file's moov with empty tables and an mvex, then moofs.
/// `plain` may be damaged; then it only has to be some bytes.
fn fragmented(pictures: &[(Vec<u8>, bool, u32)], per_fragment: usize, plain: &[u8]) -> Vec<u8> {
    let moov_at = plain.windows(4).position(|kind| kind == b"moov").map_or(0, |at| at - 4);
    let lag = pictures
        .iter()
        .enumerate()
        .map(|(number, picture)| number as u32 - (number as u32).min(picture.2))
        .max()
        .unwrap_or(0);
    let mut out = plain[..moov_at].to_vec();
    let stbl_at = plain.windows(4).position(|kind| kind == b"stbl").map_or(moov_at + 8, |at| at + 4);
    let stsd = &plain[stbl_at..];
    let stsd_bytes =
        stsd.get(..4).map_or(0, |size| u32::from_be_bytes(size.try_into().unwrap()) as usize).min(stsd.len());
    let stsd = &stsd[..stsd_bytes];
    put(&mut out, b"moov", |out| {
        put_full(out, b"mvhd", 0, 0, |out| [0, 0, 1000].map(|field| put_u32(out, field)).iter().for_each(|()| ()));
        put(out, b"trak", |out| {
            put_full(out, b"tkhd", 0, 3, |out| [0, 0, 1].into_iter().for_each(|field| put_u32(out, field)));
            put(out, b"edts", |out| {
                put_full(out, b"elst", 0, 0, |out| {
                    [1, 0, lag * 512, 0x1_0000].into_iter().for_each(|field| put_u32(out, field))
                })
            });
            put(out, b"mdia", |out| {
                put_full(out, b"mdhd", 0, 0, |out| [0, 0, 30 * 512].into_iter().for_each(|field| put_u32(out, field)));
                put_full(out, b"hdlr", 0, 0, |out| {
                    put_u32(out, 0);
                    out.extend_from_slice(b"vide");
                });
                put(out, b"minf", |out| {
                    put(out, b"stbl", |out| {
                        out.extend_from_slice(stsd);
                        for kind in [b"stts", b"stsc", b"stco"] {
                            put_full(out, kind, 0, 0, |out| put_u32(out, 0));
                        }
                        put_full(out, b"stsz", 0, 0, |out| [0, 0].into_iter().for_each(|field| put_u32(out, field)));
                    });
                });
            });
        });
        put(out, b"mvex", |out| {
            put_full(out, b"trex", 0, 0, |out| {
                [1, 1, 512, 0, 0x0101_0000].into_iter().for_each(|field| put_u32(out, field))
            })
        });
    });
    for (fragment, group) in pictures.chunks(per_fragment).enumerate() {
        put_fragment(&mut out, fragment * per_fragment, group, lag);
    }
    out
}

fn put_fragment(out: &mut Vec<u8>, first: usize, group: &[(Vec<u8>, bool, u32)], lag: u32) {
    // moof 8, mfhd 16, traf 8, tfhd 16, tfdt 16, trun 20 and 12 a sample; then the header of mdat.
    let data_offset = 8 + 16 + 8 + 16 + 16 + 20 + 12 * group.len() as u32 + 8;
    put(out, b"moof", |out| {
        put_full(out, b"mfhd", 0, 0, |out| put_u32(out, 1));
        put(out, b"traf", |out| {
            put_full(out, b"tfhd", 0, 0x02_0000, |out| put_u32(out, 1));
            put_full(out, b"tfdt", 0, 0, |out| put_u32(out, first as u32 * 512));
            put_full(out, b"trun", 1, 0xe01, |out| {
                put_u32(out, group.len() as u32);
                put_u32(out, data_offset);
                for (number, (data, key, row)) in group.iter().enumerate() {
                    put_u32(out, data.len() as u32);
                    put_u32(out, if *key { 0x0200_0000 } else { 0x0101_0000 });
                    put_u32(out, (row + lag - (first + number) as u32) * 512);
                }
            });
        });
    });
    put(out, b"mdat", |out| group.iter().for_each(|(data, ..)| out.extend_from_slice(data)));
}

/// An MP4 library that shares no code with ours reads the same tables from our file.
#[test]
fn another_library_reads_the_muxed_file() {
    let pictures: Vec<_> = [(0, true), (3, false), (1, false), (2, false), (4, true)]
        .map(|(row, key)| (vec![row as u8; 9], key, row))
        .into();
    let bytes = muxed(format(Codec::H264, 30), &pictures);
    let mut reader = Cursor::new(&bytes);
    let mp4_atom::Any::Ftyp(_) = mp4_atom::Any::read_from(&mut reader).unwrap() else { panic!("no ftyp first") };
    let mp4_atom::Any::Moov(moov) = mp4_atom::Any::read_from(&mut reader).unwrap() else { panic!("no moov second") };
    let track = &moov.trak[0];
    assert_eq!(track.mdia.mdhd.timescale, 15360);
    assert_eq!(track.mdia.mdhd.duration, 5 * 512);
    let tables = &track.mdia.minf.stbl;
    assert_eq!(tables.stss.as_ref().unwrap().entries, [1, 5]);
    let offsets: Vec<i64> = tables
        .ctts
        .as_ref()
        .unwrap()
        .entries
        .iter()
        .flat_map(|run| vec![run.sample_offset; run.sample_count as usize])
        .collect();
    assert_eq!(offsets, [512, 3 * 512, 0, 0, 512]);
    assert_eq!(track.edts.as_ref().unwrap().elst.as_ref().unwrap().entries[0].media_time, Some(512));
    let mp4_atom::Codec::Avc1(entry) = &tables.stsd.codecs[0] else { panic!("no avc1") };
    assert_eq!((entry.visual.width, entry.visual.height), (64, 48));
    let first = tables.stco.as_ref().unwrap().entries[0] as usize;
    assert_eq!(bytes[first..first + 9], [0; 9]);
}

#[test]
fn mux_uses_64_bit_offsets_and_sizes_when_the_file_needs_them() {
    let slots: Vec<Slot> = (0..100).map(|row| Slot { size: 60 << 20, key: true, presentation: row }).collect();
    let head = mux::head(format(Codec::Mjpeg, 30), &slots).unwrap();
    let mp4 = open(&head).unwrap();
    let samples = mp4.samples();
    assert_eq!(samples[0].offset, head.len() as u64);
    assert_eq!(samples[99].offset, head.len() as u64 + 99 * (60 << 20));
    assert_eq!(mp4.whole(), 0);
    assert_eq!(head[head.len() - 16..head.len() - 8], *b"\0\0\0\x01mdat");
    assert_eq!(u64::from_be_bytes(head[head.len() - 8..].try_into().unwrap()), 100 * (60 << 20) + 16);
}

#[test]
fn mux_refuses_what_no_reader_could_show() {
    let good = Slot { size: 5, key: true, presentation: 0 };
    let refused = |format: Format<'_>, slots: &[Slot]| mux::head(format, slots).unwrap_err().to_string();
    assert!(refused(format(Codec::Mjpeg, 30), &[]).contains("0 pictures"));
    assert!(refused(format(Codec::Mjpeg, 0), &[good]).contains("0 frames per second"));
    assert!(refused(format(Codec::Hevc, 30), &[good]).contains("codec hevc"));
    assert!(refused(Format { config: &[], ..format(Codec::H264, 30) }, &[good]).contains("avcC"));
    assert!(refused(Format { config: &[], ..format(Codec::Av1, 30) }, &[good]).contains("av1C"));
    assert!(refused(Format { width: 0, ..format(Codec::Mjpeg, 30) }, &[good]).contains("0x48"));
    assert!(refused(format(Codec::Mjpeg, 30), &[good, good]).contains("frame 0 is there twice"));
    assert!(refused(format(Codec::Mjpeg, 30), &[Slot { presentation: 1, ..good }]).contains("picture 0 is frame 1"));
    assert!(refused(format(Codec::Mjpeg, 30), &[Slot { size: 0, ..good }]).contains("picture 0 has 0 bytes"));
}

#[test]
fn demux_reads_what_lerobot_and_ffmpeg_wrote() {
    let cases = [
        (
            "lerobot-reference-v3/videos/observation.images.front/chunk-000/file-000.mp4",
            Codec::Av1,
            300,
            512,
            15360,
            (640, 480),
        ),
        (
            "lerobot-reference-v3/videos/observation.images.wrist/chunk-000/file-000.mp4",
            Codec::Av1,
            300,
            512,
            15360,
            (640, 480),
        ),
    ];
    for (path, codec, count, step, timescale, size) in cases {
        let mut mp4 = Mp4::open(shared(path)).unwrap();
        assert!(mp4.fault().is_none(), "{path}: {:?}", mp4.fault());
        let track = mp4.track();
        assert_eq!((track.codec, track.timescale, (track.width, track.height)), (codec, timescale, size), "{path}");
        assert!(!track.config.is_empty() && !track.audio);
        let order = mp4.presentation_order();
        let times: Vec<i64> = order.iter().map(|number| mp4.samples()[*number].pts).collect();
        assert_eq!(times, (0..count).map(|frame| frame * step).collect::<Vec<_>>(), "{path}");
        assert!(mp4.samples()[0].key && !mp4.samples()[1].key && mp4.samples()[2].key, "{path}: key frames two apart");
        assert!((0..mp4.samples().len()).all(|number| mp4.read_sample(number).is_ok()));
    }
}

/// B-frames: decoding order differs from the order of showing, and an edit list takes the delay away.
#[test]
fn demux_shows_the_first_picture_of_an_h264_file_at_0_and_the_others_in_order() {
    for episode in 0..5 {
        let root = shared("gr1-picknplace-v2/videos");
        let path = find(&root, &format!("episode_00000{episode}.mp4"));
        let mp4 = Mp4::open(&path).unwrap();
        assert_eq!(mp4.track().codec, Codec::H264);
        let times: Vec<i64> = mp4.presentation_order().into_iter().map(|number| mp4.samples()[number].pts).collect();
        assert_eq!(times[0], 0);
        let step = i64::from(mp4.track().timescale) / 20;
        assert!(times.windows(2).all(|pair| pair[1] - pair[0] == step), "{}", path.display());
    }
}

fn find(root: &Path, name: &str) -> PathBuf {
    let mut folders = vec![root.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.file_name().is_some_and(|file| file == name) {
                return path;
            }
        }
    }
    panic!("no {name} under {}", root.display());
}

#[test]
fn demux_says_what_is_wrong() {
    let message = |bytes: &[u8]| open(bytes).unwrap_err().to_string();
    assert!(message(b"").contains("not an mp4"));
    assert!(
        message(b"version https://git-lfs.github.com/spec/v1")
            .contains("not an mp4 file: it begins with \"version http")
    );
    let mut unfinished = Vec::new();
    put(&mut unfinished, b"ftyp", |out| out.extend_from_slice(b"isom\0\0\0\0"));
    put(&mut unfinished, b"mdat", |out| out.extend_from_slice(&[7; 100]));
    assert!(message(&unfinished).contains("no moov box in 124 bytes, last box mdat"));
    let whole = muxed(format(Codec::Mjpeg, 30), &[(vec![1; 10], true, 0)]);
    assert!(message(&whole[..100]).contains("box moov at byte 28"), "{}", message(&whole[..100]));
}

/// An index of a few hundred bytes that claims millions of samples is refused before memory is taken.
#[test]
fn demux_refuses_counts_that_the_file_cannot_hold() {
    let whole = muxed(format(Codec::Mjpeg, 30), &[(vec![1; 10], true, 0)]);
    let at = whole.windows(4).position(|kind| kind == b"stsz").unwrap();
    let mut uniform = whole.clone();
    uniform[at + 8..at + 12].copy_from_slice(&1u32.to_be_bytes());
    uniform[at + 12..at + 16].copy_from_slice(&4_000_000u32.to_be_bytes());
    assert!(open(&uniform).unwrap_err().to_string().contains("4000000 samples of 1 bytes in a file of"));
    uniform[at + 12..at + 16].copy_from_slice(&u32::MAX.to_be_bytes());
    assert!(matches!(open(&uniform).unwrap_err(), Mp4Error::TooLarge { got: 4_294_967_295, .. }));
    let mut table = whole.clone();
    table[at + 12..at + 16].copy_from_slice(&4_000_000u32.to_be_bytes());
    assert!(matches!(open(&table).unwrap_err(), Mp4Error::Box { .. }));
}

#[test]
fn tables_that_disagree_are_a_fault_and_give_what_both_know() {
    let pictures: Vec<_> = (0..4).map(|row| (vec![row as u8; 5], true, row)).collect();
    let mut bytes = muxed(format(Codec::Mjpeg, 30), &pictures);
    let at = bytes.windows(4).position(|kind| kind == b"stts").unwrap();
    bytes[at + 12..at + 16].copy_from_slice(&3u32.to_be_bytes());
    let mp4 = open(&bytes).unwrap();
    assert_eq!((mp4.samples().len(), mp4.whole()), (3, 3));
    assert!(mp4.fault().unwrap().to_string().contains("sizes of 4 samples, but places for 4 and times for 3"));
}

#[test]
fn samples_outside_the_edit_list_are_not_shown() {
    // Three frames; the edit list begins at the second one, as a lossless trim does.
    let pictures = [(vec![0; 3], true, 0), (vec![2; 3], false, 2), (vec![1; 3], false, 1)];
    let mut bytes = muxed(format(Codec::H264, 30), &pictures);
    let at = bytes.windows(4).position(|kind| kind == b"elst").unwrap();
    bytes[at + 16..at + 20].copy_from_slice(&(2 * TICKS_PER_FRAME).to_be_bytes());
    let mp4 = open(&bytes).unwrap();
    let seen: Vec<(bool, i64)> = mp4.samples().iter().map(|sample| (sample.shown, sample.pts)).collect();
    assert_eq!(seen, [(false, -512), (true, 512), (true, 0)]);
    assert_eq!(mp4.presentation_order(), [2, 1]);
}

#[test]
fn reading_a_sample_that_does_not_exist_is_an_error() {
    let bytes = muxed(format(Codec::Mjpeg, 30), &[(vec![9; 4], true, 0)]);
    let mut mp4 = open(&bytes).unwrap();
    assert_eq!(mp4.read_sample(0).unwrap(), Bytes::from_static(&[9; 4]));
    assert!(matches!(mp4.read_sample(1), Err(Mp4Error::NoSample { sample: 1, samples: 1 })));
}
