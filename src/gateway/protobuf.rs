//! Just enough of Protocol Buffers to read fields out of a message, without its schema and without copying.

/// A field's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field<'a> {
    /// A variable-length integer.
    Number(u64),
    /// Bytes, a text, a message, or packed numbers.
    Bytes(&'a [u8]),
    /// Four or eight bytes.
    Fixed,
}

impl<'a> Field<'a> {
    /// The field as text.
    pub fn text(self) -> Option<&'a str> {
        match self {
            Field::Bytes(bytes) => std::str::from_utf8(bytes).ok(),
            _ => None,
        }
    }
}

/// What is left isn't a field: the message ends in the middle of one, or isn't one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut;

/// The fields of a message, in their order, by number.
#[derive(Clone, Copy)]
pub struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    /// Of this message.
    pub fn of(message: &'a [u8]) -> Self {
        Self(message)
    }

    fn read(&mut self) -> Option<(u64, Field<'a>)> {
        let tag = number(&mut self.0)?;
        let field = match tag & 7 {
            0 => Field::Number(number(&mut self.0)?),
            1 => self.fixed(8)?,
            2 => {
                let length = usize::try_from(number(&mut self.0)?).ok()?;
                Field::Bytes(self.0.split_off(..length)?)
            }
            5 => self.fixed(4)?,
            _ => return None, // Groups are of before proto3.
        };
        Some((tag >> 3, field))
    }

    fn fixed(&mut self, length: usize) -> Option<Field<'a>> {
        self.0.split_off(..length).map(|_| Field::Fixed)
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u64, Field<'a>), Cut>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let read = self.read();
        if read.is_none() {
            self.0 = &[];
        }
        Some(read.ok_or(Cut))
    }
}

/// Numbers that follow each other without tags.
pub fn packed(mut bytes: &[u8]) -> Result<Vec<u64>, Cut> {
    let mut numbers = Vec::new();
    while !bytes.is_empty() {
        numbers.push(number(&mut bytes).ok_or(Cut)?);
    }
    Ok(numbers)
}

/// Seven bits in each byte, the lowest first; the eighth says that more come.
fn number(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for place in 0..10 {
        let byte = *bytes.split_off_first()?;
        value |= u64::from(byte & 0x7f) << (7 * place);
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `1: "m", 3: 300, 4: (fixed32), 5: (fixed64)`, as protoc writes it.
    const MESSAGE: &[u8] = b"\x0a\x01m\x18\xac\x02\x250000\x2911111111";

    #[test]
    fn fields_are_read_by_number_and_type() {
        let fields: Result<Vec<_>, Cut> = Fields::of(MESSAGE).collect();
        let wanted = vec![
            (1, Field::Bytes(b"m")),
            (3, Field::Number(300)),
            (4, Field::Fixed),
            (5, Field::Fixed),
        ];
        assert_eq!(fields, Ok(wanted));
        assert_eq!(packed(b"\x01\xac\x02"), Ok(vec![1, 300]));
    }

    #[test]
    fn what_is_cut_off_or_no_message_is_said_once_and_never_read_beyond() {
        for end in 0..MESSAGE.len() {
            let fields: Vec<_> = Fields::of(&MESSAGE[..end]).collect();
            let cut = fields.iter().filter(|f| f.is_err()).count();
            assert_eq!(cut, usize::from(![0, 3, 6, 11].contains(&end)), "{end}");
        }
        for wrong in [
            &b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"[..],
            b"\x0b",
        ] {
            assert_eq!(Fields::of(wrong).last(), Some(Err(Cut)));
        }
        assert_eq!(packed(b"\xff"), Err(Cut));
    }
}
