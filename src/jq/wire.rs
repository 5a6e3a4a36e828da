//! The frames between the server and a worker: four bytes of length, one of kind, and the fields.

use std::io::{self, Read};

use bytes::Bytes;

use super::program::CompileError;

/// Bytes of the largest frame that a worker takes.
pub(super) const MAX_FRAME: usize = 64 * 1024 * 1024;

/// What the server asks. Each but [`Request::Forget`] has one [`Answer`], in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Request<'a> {
    /// Keep this program under this number, which is the number of programs kept so far.
    Compile { program: u32, code: &'a str },
    /// Keep no program any more.
    Forget,
    /// Run an event through these programs.
    Run { filter: Option<u32>, transformer: Option<u32>, output_bytes: u32, event: &'a [u8] },
}

/// What a worker says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    /// Its limits are set. Said once, unasked.
    Ready,
    Compiled,
    NotCompiled(CompileError),
    Unchanged,
    Changed(Bytes),
    /// The filter did not answer `true`.
    False,
    Failed(String),
    OutputTooLarge,
    /// The program is not kept here.
    Unknown,
}

impl Request<'_> {
    /// Appends the frame.
    pub(super) fn encode(&self, to: &mut Vec<u8>) {
        frame(to, |to| match *self {
            Self::Compile { program, code } => {
                to.push(0);
                to.extend(program.to_le_bytes());
                to.extend(code.as_bytes());
            }
            Self::Forget => to.push(1),
            Self::Run { filter, transformer, output_bytes, event } => {
                // Which of the two programs there are.
                to.push(2 | u8::from(filter.is_some()) << 2 | u8::from(transformer.is_some()) << 3);
                for number in [filter, transformer, Some(output_bytes)].into_iter().flatten() {
                    to.extend(number.to_le_bytes());
                }
                to.extend(event);
            }
        });
    }
}

impl<'a> Request<'a> {
    /// Reads a frame without its length. `None`: it makes no sense.
    pub(super) fn decode(frame: &'a [u8]) -> Option<Self> {
        let (kind, mut rest) = frame.split_first()?;
        let mut number = || {
            let (number, after) = rest.split_first_chunk()?;
            rest = after;
            Some(u32::from_le_bytes(*number))
        };
        match kind & 3 {
            0 => Some(Self::Compile { program: number()?, code: std::str::from_utf8(rest).ok()? }),
            1 => Some(Self::Forget),
            2 => {
                let filter = if kind & 4 != 0 { Some(number()?) } else { None };
                let transformer = if kind & 8 != 0 { Some(number()?) } else { None };
                Some(Self::Run { filter, transformer, output_bytes: number()?, event: rest })
            }
            _ => None,
        }
    }
}

impl Answer {
    /// Appends the frame.
    pub(super) fn encode(&self, to: &mut Vec<u8>) {
        frame(to, |to| match self {
            Self::Ready => to.push(0),
            Self::Compiled => to.push(1),
            Self::NotCompiled(CompileError { line, column, message }) => {
                to.push(2);
                // Programs are far shorter than 4 GiB.
                to.extend((*line as u32).to_le_bytes());
                to.extend((*column as u32).to_le_bytes());
                to.extend(message.as_bytes());
            }
            Self::Unchanged => to.push(3),
            Self::Changed(json) => {
                to.push(4);
                to.extend(json);
            }
            Self::False => to.push(5),
            Self::Failed(message) => {
                to.push(6);
                to.extend(message.as_bytes());
            }
            Self::OutputTooLarge => to.push(7),
            Self::Unknown => to.push(8),
        });
    }

    /// Reads a frame without its length. `None`: it makes no sense.
    pub(super) fn decode(frame: &Bytes) -> Option<Self> {
        let (kind, rest) = frame.split_first()?;
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).ok();
        Some(match kind {
            0 => Self::Ready,
            1 => Self::Compiled,
            2 => {
                let (line, rest) = rest.split_first_chunk()?;
                let (column, rest) = rest.split_first_chunk()?;
                let [line, column] = [line, column].map(|number| u32::from_le_bytes(*number) as usize);
                Self::NotCompiled(CompileError { line, column, message: text(rest)? })
            }
            3 => Self::Unchanged,
            4 => Self::Changed(frame.slice(1..)),
            5 => Self::False,
            6 => Self::Failed(text(rest)?),
            7 => Self::OutputTooLarge,
            8 => Self::Unknown,
            _ => return None,
        })
    }
}

fn frame(to: &mut Vec<u8>, body: impl FnOnce(&mut Vec<u8>)) {
    let start = to.len();
    to.extend([0; 4]);
    body(to);
    // Neither side makes a frame near 4 GiB.
    let len = (to.len() - start - 4) as u32;
    to[start..start + 4].copy_from_slice(&len.to_le_bytes());
}

/// Reads the next frame into `frame`, without its length. `false`: the other side has ended.
pub(super) fn read(from: &mut impl Read, frame: &mut Vec<u8>) -> io::Result<bool> {
    let mut len = [0; 4];
    match from.read_exact(&mut len) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
        read => read?,
    }
    let len = u32::from_le_bytes(len) as usize;
    if len > MAX_FRAME {
        return Err(io::ErrorKind::InvalidData.into());
    }
    frame.resize(len, 0);
    from.read_exact(frame)?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frames(mut bytes: &[u8]) -> Vec<Vec<u8>> {
        let mut all = Vec::new();
        let mut frame = Vec::new();
        while read(&mut bytes, &mut frame).unwrap() {
            all.push(frame.clone());
        }
        all
    }

    fn answer() -> impl Strategy<Value = Answer> {
        let place = (1usize..100_000, 1usize..100_000, ".*");
        prop_oneof![
            Just(Answer::Ready),
            Just(Answer::Compiled),
            place.prop_map(|(line, column, message)| {
                Answer::NotCompiled(CompileError { line, column, message })
            }),
            Just(Answer::Unchanged),
            prop::collection::vec(any::<u8>(), 0..300).prop_map(|json| Answer::Changed(json.into())),
            Just(Answer::False),
            ".*".prop_map(Answer::Failed),
            Just(Answer::OutputTooLarge),
            Just(Answer::Unknown),
        ]
    }

    proptest! {
        #[test]
        fn requests_survive(
            program: u32,
            code in ".*",
            filter: Option<u32>,
            transformer: Option<u32>,
            output_bytes: u32,
            event in prop::collection::vec(any::<u8>(), 0..300),
        ) {
            let requests = [
                Request::Compile { program, code: &code },
                Request::Forget,
                Request::Run { filter, transformer, output_bytes, event: &event },
            ];
            let mut bytes = Vec::new();
            requests.iter().for_each(|request| request.encode(&mut bytes));
            let frames = frames(&bytes);
            let read: Vec<_> = frames.iter().map(|frame| Request::decode(frame).unwrap()).collect();
            prop_assert_eq!(read, requests);
        }

        #[test]
        fn answers_survive(answers in prop::collection::vec(answer(), 0..9)) {
            let mut bytes = Vec::new();
            answers.iter().for_each(|answer| answer.encode(&mut bytes));
            let read: Vec<_> =
                frames(&bytes).into_iter().map(|frame| Answer::decode(&frame.into()).unwrap()).collect();
            prop_assert_eq!(read, answers);
        }

        #[test]
        fn anything_else_is_refused_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            let _ = Request::decode(&bytes);
            let _ = Answer::decode(&bytes.into());
        }
    }

    #[test]
    fn a_frame_may_not_be_huge_nor_cut() {
        let mut frame = Vec::new();
        assert!(read(&mut &u32::MAX.to_le_bytes()[..], &mut frame).is_err());
        assert!(read(&mut &[5, 0, 0, 0, 1][..], &mut frame).is_err());
    }
}
