//! Personal data in text, by rule: what has a checksum or a fixed shape. Names and places have neither, and aren't found.
//!
//! | entity | rule | taken wrongly |
//! | --- | --- | --- |
//! | `EMAIL_ADDRESS` | `local@host.tld` | examples in documentation |
//! | `PHONE_NUMBER` | + and 8 to 15 digits, or 3-3-4 digits with separators | other numbers grouped so |
//! | `CREDIT_CARD` | 13 to 19 digits, grouped or not, with the check digit of Luhn (ISO/IEC 7812-1) | one random number in ten of such length |
//! | `IBAN_CODE` | two letters, two digits, 11 to 30 letters or digits, remainder 97 (ISO 13616) | one in a hundred |
//! | `US_SSN` | 3-2-4 digits with separators; not 000, 666, 9xx, nor zeros alone (SSA) | other numbers grouped so |
//! | `IP_ADDRESS` | four numbers up to 255 | version numbers of four parts |

use std::{collections::BTreeSet, sync::LazyLock};

use regex::Regex;

/// A kind of personal data, by the name that Presidio has for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Entity {
    /// An address for mail.
    Email,
    /// A telephone number.
    Phone,
    /// The number of a payment card.
    CreditCard,
    /// The number of a bank account.
    Iban,
    /// A social security number of the USA.
    UsSsn,
    /// An IPv4 address.
    Ip,
}

impl Entity {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Email,
        Self::Phone,
        Self::CreditCard,
        Self::Iban,
        Self::UsSsn,
        Self::Ip,
    ];

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Email => "EMAIL_ADDRESS",
            Self::Phone => "PHONE_NUMBER",
            Self::CreditCard => "CREDIT_CARD",
            Self::Iban => "IBAN_CODE",
            Self::UsSsn => "US_SSN",
            Self::Ip => "IP_ADDRESS",
        }
    }
}

/// Candidates by shape; a rule decides which are taken. `[0-9]`, as `\d` is any script's digits, which no rule here can count.
static SHAPES: LazyLock<Vec<(Entity, Regex)>> = LazyLock::new(|| {
    [
        (
            Entity::Email,
            r"(?i)\b[a-z0-9._%+-]+@(?:[a-z0-9-]+\.)+[a-z]{2,24}\b",
        ),
        (Entity::CreditCard, r"\b[0-9](?:[ -]?[0-9]){12,18}\b"),
        (
            Entity::Iban,
            r"\b[A-Z]{2}[0-9]{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?\b",
        ),
        (Entity::UsSsn, r"\b[0-9]{3}[- ][0-9]{2}[- ][0-9]{4}\b"),
        (Entity::Ip, r"\b(?:[0-9]{1,3}\.){3}[0-9]{1,3}\b"),
        (
            Entity::Phone,
            r"(?:\+[0-9]{1,3}(?:[ ().-]{0,2}[0-9]){7,12}|(?:\([0-9]{3}\) ?|\b[0-9]{3}[ .-])[0-9]{3}[ .-][0-9]{4})\b",
        ),
    ]
    .into_iter()
    // They are constants, and a test reads them all.
    .filter_map(|(entity, shape)| Some((entity, Regex::new(shape).ok()?)))
    .collect()
});

fn digits(text: &str) -> Vec<u32> {
    text.chars().filter_map(|c| c.to_digit(10)).collect()
}

fn luhn(text: &str) -> bool {
    let sum: u32 = digits(text)
        .iter()
        .rev()
        .enumerate()
        .map(|(i, &d)| match i % 2 {
            0 => d,
            _ => d * 2 / 10 + d * 2 % 10,
        })
        .sum();
    sum.is_multiple_of(10) && digits(text).iter().any(|d| *d != 0)
}

/// Remainder of the rearranged number by 97.
fn iban(text: &str) -> bool {
    let plain: String = text.chars().filter(char::is_ascii_alphanumeric).collect();
    if !(15..=34).contains(&plain.len()) {
        return false;
    }
    let (head, tail) = plain.split_at(4);
    let remainder = tail
        .chars()
        .chain(head.chars())
        .filter_map(|c| c.to_digit(36))
        .fold(0, |r, d| {
            if d < 10 {
                (r * 10 + d) % 97
            } else {
                (r * 100 + d) % 97
            }
        });
    remainder == 1
}

fn ssn(text: &str) -> bool {
    let digits = digits(text);
    if digits.len() != 9 {
        return false;
    }
    let number = |part: &[u32]| part.iter().fold(0, |n, d| n * 10 + d);
    let (area, group, serial) = (
        number(&digits[..3]),
        number(&digits[3..5]),
        number(&digits[5..]),
    );
    !matches!(area, 0 | 666 | 900..) && group != 0 && serial != 0
}

/// The kinds of personal data that a text has.
#[must_use]
pub fn entities(text: &str) -> BTreeSet<Entity> {
    let taken = |entity: Entity, found: &str| match entity {
        Entity::Email | Entity::Phone => true,
        Entity::CreditCard => luhn(found),
        Entity::Iban => iban(found),
        Entity::UsSsn => ssn(found),
        Entity::Ip => found.split('.').all(|part| part.parse::<u8>().is_ok()),
    };
    SHAPES
        .iter()
        .filter(|(entity, shape)| shape.find_iter(text).any(|m| taken(*entity, m.as_str())))
        .map(|(entity, _)| *entity)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_and_check_digits_decide() {
        assert_eq!(SHAPES.len(), Entity::ALL.len());
        for (text, expected) in [
            ("write to jane.doe+x@mail.example.org.", vec![Entity::Email]),
            ("call +49 30 1234567 or (212) 555-0123", vec![Entity::Phone]),
            ("card 4111 1111 1111 1111", vec![Entity::CreditCard]),
            ("card 4111 1111 1111 1112", vec![]),
            ("order 0000 0000 0000 0000", vec![]),
            ("IBAN DE89 3704 0044 0532 0130 00", vec![Entity::Iban]),
            ("IBAN DE88 3704 0044 0532 0130 00", vec![]),
            ("GB82WEST12345698765432", vec![Entity::Iban]),
            ("SSN 536-22-1234", vec![Entity::UsSsn]),
            ("SSN 666-22-1234, 536-00-1234", vec![]),
            ("host 192.168.0.1", vec![Entity::Ip]),
            ("host 192.168.0.256", vec![]),
            ("In 2013, 336,776 flights left; AUC 0.7312.", vec![]),
            // Digits of other scripts are no shape of ours.
            (
                "SSN ٥٣٦-٢٢-١٢٣٤, ip ١.١.١.١, card ４１１１ １１１１ １１１１ １１１１",
                vec![],
            ),
            ("", vec![]),
        ] {
            let found: Vec<Entity> = entities(text).into_iter().collect();
            assert_eq!(found, expected, "{text}");
        }
    }
}
