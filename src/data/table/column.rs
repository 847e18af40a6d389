//! Typed columns.

use std::fmt;

/// What a column holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Whole numbers that fit 64 bits.
    Integer,
    /// Floating-point numbers.
    Number,
    /// Text.
    Text,
    /// `true` and `false`.
    Boolean,
    /// Points in time.
    Time,
    /// Lists, objects, bytes: can't be read as a column.
    Other,
}

impl Kind {
    /// The kind that holds both; `None` if there is none.
    pub(super) fn and(self, other: Self) -> Option<Self> {
        match (self, other) {
            (a, b) if a == b => Some(a),
            (Self::Integer, Self::Number) | (Self::Number, Self::Integer) => Some(Self::Number),
            _ => None,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Integer => "integers",
            Self::Number => "numbers",
            Self::Text => "text",
            Self::Boolean => "booleans",
            Self::Time => "times",
            Self::Other => "lists, objects or bytes",
        })
    }
}

/// One value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Cell<'a> {
    /// Missing.
    Null,
    /// A whole number.
    Integer(i64),
    /// A number; NaN and infinities are possible.
    Number(f64),
    /// Text.
    Text(&'a str),
    /// `true` or `false`.
    Boolean(bool),
    /// Microseconds since 1970, UTC.
    Time(i64),
}

impl Cell<'_> {
    /// The value as a number: also a boolean (0, 1), and a time (microseconds). NaN is `None`, like what is missing.
    #[must_use]
    pub fn number(self) -> Option<f64> {
        match self {
            Self::Integer(x) | Self::Time(x) => Some(x as f64),
            Self::Number(x) => (!x.is_nan()).then_some(x),
            Self::Boolean(x) => Some(f64::from(u8::from(x))),
            Self::Null | Self::Text(_) => None,
        }
    }

    /// Whether there is no value: missing, or NaN.
    #[must_use]
    pub fn is_missing(self) -> bool {
        match self {
            Self::Null => true,
            Self::Number(x) => x.is_nan(),
            _ => false,
        }
    }
}

impl fmt::Display for Cell<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => Ok(()),
            Self::Integer(x) => write!(f, "{x}"),
            Self::Number(x) => write!(f, "{x}"),
            Self::Text(x) => f.write_str(x),
            Self::Boolean(x) => write!(f, "{x}"),
            Self::Time(x) => match jiff::Timestamp::from_microsecond(*x) {
                Ok(time) => write!(f, "{time}"),
                Err(_) => write!(f, "{x} µs"),
            },
        }
    }
}

/// The values of a column.
#[derive(Clone, Debug, PartialEq)]
pub enum Values {
    /// Whole numbers.
    Integer(Vec<Option<i64>>),
    /// Numbers.
    Number(Vec<Option<f64>>),
    /// Text.
    Text(Vec<Option<Box<str>>>),
    /// `true` and `false`.
    Boolean(Vec<Option<bool>>),
    /// Microseconds since 1970, UTC.
    Time(Vec<Option<i64>>),
}

impl Values {
    /// No values of this kind ([`Kind::Other`] as text).
    #[must_use]
    pub fn empty(kind: Kind) -> Self {
        match kind {
            Kind::Integer => Self::Integer(Vec::new()),
            Kind::Number => Self::Number(Vec::new()),
            Kind::Text | Kind::Other => Self::Text(Vec::new()),
            Kind::Boolean => Self::Boolean(Vec::new()),
            Kind::Time => Self::Time(Vec::new()),
        }
    }

    /// How many.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Integer(v) | Self::Time(v) => v.len(),
            Self::Number(v) => v.len(),
            Self::Text(v) => v.len(),
            Self::Boolean(v) => v.len(),
        }
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Their kind.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Integer(_) => Kind::Integer,
            Self::Number(_) => Kind::Number,
            Self::Text(_) => Kind::Text,
            Self::Boolean(_) => Kind::Boolean,
            Self::Time(_) => Kind::Time,
        }
    }

    /// One value; beyond the end it is missing.
    #[must_use]
    pub fn cell(&self, row: usize) -> Cell<'_> {
        let found = match self {
            Self::Integer(v) => v.get(row).copied().flatten().map(Cell::Integer),
            Self::Number(v) => v.get(row).copied().flatten().map(Cell::Number),
            Self::Text(v) => v.get(row).and_then(|x| x.as_deref()).map(Cell::Text),
            Self::Boolean(v) => v.get(row).copied().flatten().map(Cell::Boolean),
            Self::Time(v) => v.get(row).copied().flatten().map(Cell::Time),
        };
        found.unwrap_or(Cell::Null)
    }

    /// Appends values of the same kind (of another kind: missing ones, which does not happen).
    pub(super) fn extend(&mut self, more: &Self) {
        match (self, more) {
            (Self::Integer(a), Self::Integer(b)) | (Self::Time(a), Self::Time(b)) => {
                a.extend_from_slice(b);
            }
            (Self::Number(a), Self::Number(b)) => a.extend_from_slice(b),
            (Self::Text(a), Self::Text(b)) => a.extend_from_slice(b),
            (Self::Boolean(a), Self::Boolean(b)) => a.extend_from_slice(b),
            (a, b) => (0..b.len()).for_each(|_| a.push_null()),
        }
    }

    pub(super) fn push_null(&mut self) {
        match self {
            Self::Integer(v) | Self::Time(v) => v.push(None),
            Self::Number(v) => v.push(None),
            Self::Text(v) => v.push(None),
            Self::Boolean(v) => v.push(None),
        }
    }
}

/// A column.
#[derive(Clone, Debug, PartialEq)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// Its values.
    pub values: Values,
}

impl Column {
    /// A column without values.
    #[must_use]
    pub fn empty(name: &str, kind: Kind) -> Self {
        Self {
            name: name.to_owned(),
            values: Values::empty(kind),
        }
    }
}
