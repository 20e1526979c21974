//! WebSocket frames of a client, appended to one buffer so that many leave in one system call.
//!
//! `fastwebsockets` writes each frame by itself and copies a masked payload twice; here it is copied once.

use fastwebsockets::OpCode;

/// Appends one whole, masked frame.
pub(crate) fn append(buffer: &mut Vec<u8>, opcode: OpCode, payload: &[u8], mask: [u8; 4]) {
    buffer.push(0x80 | opcode as u8);
    match (u8::try_from(payload.len()), u16::try_from(payload.len())) {
        (Ok(length), _) if length < 126 => buffer.push(0x80 | length),
        (_, Ok(length)) => {
            buffer.push(0x80 | 126);
            buffer.extend_from_slice(&length.to_be_bytes());
        }
        (_, Err(_)) => {
            buffer.push(0x80 | 127);
            buffer.extend_from_slice(&(payload.len() as u64).to_be_bytes());
        }
    }
    buffer.extend_from_slice(&mask);
    let start = buffer.len();
    buffer.extend_from_slice(payload);
    fastwebsockets::unmask(&mut buffer[start..], mask);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    /// Reads frames as RFC 6455 section 5.2 has them.
    fn read(mut bytes: &[u8]) -> Vec<(u8, Vec<u8>)> {
        let mut frames = Vec::new();
        while let [first, second, rest @ ..] = bytes {
            assert_eq!((first & 0xf0, second & 0x80), (0x80, 0x80), "final and masked");
            let (length, rest) = match second & 0x7f {
                126 => (u64::from(u16::from_be_bytes([rest[0], rest[1]])), &rest[2..]),
                127 => (u64::from_be_bytes(rest[..8].try_into().unwrap()), &rest[8..]),
                length => (u64::from(length), rest),
            };
            let (mask, rest) = rest.split_at(4);
            let (masked, rest) = rest.split_at(length as usize);
            frames
                .push((first & 0x0f, masked.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask).collect()));
            bytes = rest;
        }
        assert!(bytes.is_empty());
        frames
    }

    proptest! {
        #[test]
        fn joined_frames_come_apart_again(payloads in vec((vec(any::<u8>(), 0..300), any::<[u8; 4]>()), 0..5)) {
            let mut buffer = Vec::new();
            for (payload, mask) in &payloads {
                append(&mut buffer, OpCode::Binary, payload, *mask);
            }
            prop_assert_eq!(read(&buffer), payloads.into_iter().map(|(payload, _)| (2, payload)).collect::<Vec<_>>());
        }
    }

    #[test]
    fn every_form_of_the_length_is_written() {
        for length in [0, 125, 126, 65_535, 65_536, 1 << 20] {
            let mut buffer = Vec::new();
            append(&mut buffer, OpCode::Binary, &vec![7; length], [1, 2, 3, 4]);
            assert_eq!(read(&buffer), [(2, vec![7; length])]);
        }
    }
}
