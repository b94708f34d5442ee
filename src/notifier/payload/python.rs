//! A parser for Python literals, as accepted by `ast.literal_eval`, into JSON values.
//!
//! The parser evaluates and calls nothing: a name other than `None`, `True`, `False` and `set()` is an error. The depth is
//! limited, as in Python, so no input can exhaust the stack.

use serde_json::{Map, Number, Value};

/// The maximum depth of nested brackets: less than `serde_json` accepts, more than CPython's parser does.
const DEPTH_MAX: usize = 100;

/// Parses a literal. The error contains the reason and the byte.
pub(crate) fn parse(text: &str) -> Result<Value, String> {
    // literal_eval strips leading blanks and tabs, and Python ignores the others.
    let mut parser = LiteralParser { text, at: 0, depth: 0 };
    parser.skip_blanks();
    let value = parser.tuple_or_value()?;
    match parser.peek() {
        None => Ok(value.0),
        Some(more) => Err(parser.error(&format!("{more:?} after the end of the literal"))),
    }
}

struct LiteralParser<'t> {
    text: &'t str,
    at: usize,
    depth: usize,
}

/// A value, and its Python notation for use as a JSON key.
struct Literal(Value, String);

impl Literal {
    fn plain(value: Value, shown: &str) -> Self {
        Self(value, shown.to_owned())
    }
}

impl<'t> LiteralParser<'t> {
    fn rest(&self) -> &'t str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn error(&self, reason: &str) -> String {
        format!("{reason}, at byte {}", self.at)
    }

    fn skip_blanks(&mut self) {
        let rest = self.rest();
        self.at += rest.len() - rest.trim_start_matches([' ', '\t', '\n', '\r', '\x0c']).len();
    }

    /// Consumes a character and the blanks after it. Returns `false` if another character comes next.
    fn consume(&mut self, sign: char) -> bool {
        let found = self.peek() == Some(sign);
        if found {
            self.at += sign.len_utf8();
            self.skip_blanks();
        }
        found
    }

    fn tuple_or_value(&mut self) -> Result<Literal, String> {
        let first = self.value()?;
        if self.peek() != Some(',') {
            return Ok(first);
        }
        let mut items = vec![first];
        while self.consume(',') && self.peek().is_some_and(|next| next != ')') {
            items.push(self.value()?);
        }
        Ok(tuple(items))
    }

    fn value(&mut self) -> Result<Literal, String> {
        let Some(first) = self.peek() else { return Err(self.error("the text ends where a value is expected")) };
        let value = match first {
            '[' => self.nested(|it| {
                let items = it.items(']')?;
                let shown = format!("[{}]", joined(&items));
                Ok(Literal(Value::Array(values(items)), shown))
            }),
            '(' => self.nested(|it| {
                if it.consume(')') {
                    return Ok(tuple(Vec::new()));
                }
                let inner = it.tuple_or_value()?;
                if it.consume(')') { Ok(inner) } else { Err(it.error("a `)` is missing")) }
            }),
            '{' => self.nested(Self::dict_or_set),
            '+' | '-' | '.' | '0'..='9' => self.number(),
            '\'' | '"' => self.strings(),
            _ => self.word(),
        }?;
        self.skip_blanks();
        Ok(value)
    }

    /// Parses the contents of a bracket, with the closing one.
    fn nested(&mut self, inner: impl FnOnce(&mut Self) -> Result<Literal, String>) -> Result<Literal, String> {
        if self.depth == DEPTH_MAX {
            return Err(self.error(&format!("brackets are nested deeper than {DEPTH_MAX}")));
        }
        self.depth += 1;
        self.at += 1;
        self.skip_blanks();
        let value = inner(self);
        self.depth -= 1;
        value
    }

    /// Parses values separated by commas, with the closing bracket.
    fn items(&mut self, end: char) -> Result<Vec<Literal>, String> {
        let mut items = Vec::new();
        while !self.consume(end) {
            items.push(self.value()?);
            if !self.consume(',') && self.peek() != Some(end) {
                return Err(self.error(&format!("a `,` or a `{end}` is missing")));
            }
        }
        Ok(items)
    }

    fn dict_or_set(&mut self) -> Result<Literal, String> {
        if self.consume('}') {
            return Ok(Literal::plain(Value::Object(Map::new()), "{}"));
        }
        let first = self.value()?;
        if !self.consume(':') {
            let mut items = vec![first];
            if self.consume(',') {
                items.extend(self.items('}')?);
            } else if !self.consume('}') {
                return Err(self.error("a `:`, a `,` or a `}` is missing"));
            }
            let shown = format!("{{{}}}", joined(&items));
            return Ok(Literal(Value::Array(values(items)), shown));
        }
        let mut map = Map::new();
        let mut key = first;
        loop {
            let value = self.value()?;
            let name = match key.0 {
                Value::String(text) => text,
                Value::Object(_) => return Err(self.error("a dict cannot be a key")),
                _ => key.1,
            };
            map.insert(name, value.0);
            let more = self.consume(',');
            if self.consume('}') {
                // A value that contains a dict is never a key.
                return Ok(Literal(Value::Object(map), String::new()));
            }
            if !more {
                return Err(self.error("a `,` or a `}` is missing"));
            }
            key = self.value()?;
            if !self.consume(':') {
                return Err(self.error("a `:` is missing"));
            }
        }
    }

    fn word(&mut self) -> Result<Literal, String> {
        let rest = self.rest();
        let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
        let (word, after) = rest.split_at_checked(end).unwrap_or_default();
        if after.starts_with(['\'', '"']) {
            return self.strings();
        }
        let value = match word {
            "None" => Value::Null,
            "True" => Value::Bool(true),
            "False" => Value::Bool(false),
            "set" if after.starts_with("()") => {
                self.at += "set()".len();
                return Ok(Literal::plain(Value::Array(Vec::new()), "set()"));
            }
            "" => return Err(self.error(&format!("{:?} begins no value", self.peek().unwrap_or_default()))),
            _ => return Err(self.error("a name other than None, True and False")),
        };
        self.at += end;
        Ok(Literal::plain(value, word))
    }

    fn number(&mut self) -> Result<Literal, String> {
        let begin = self.at;
        let mut negative = false;
        while let Some(sign @ ('+' | '-')) = self.peek() {
            negative ^= sign == '-';
            self.at += 1;
            self.skip_blanks();
        }
        let rest = self.rest();
        let mut end = 0;
        let mut before = ' ';
        for c in rest.chars() {
            let exponent = matches!(before, 'e' | 'E') && !rest.starts_with("0x") && !rest.starts_with("0X");
            if !(c.is_ascii_alphanumeric() || matches!(c, '.' | '_') || (exponent && matches!(c, '+' | '-'))) {
                break;
            }
            before = c;
            end += c.len_utf8();
        }
        let digits = rest.get(..end).unwrap_or_default();
        let number = number(digits, negative).map_err(|reason| {
            let at = begin;
            format!("{reason}, at byte {at}")
        })?;
        self.at += end;
        let shown = number.to_string();
        Ok(Literal(Value::Number(number), shown))
    }

    /// Parses strings or bytes. Adjacent ones are concatenated.
    fn strings(&mut self) -> Result<Literal, String> {
        let (mut text, mut bytes) = (None::<String>, None::<Vec<u8>>);
        loop {
            let rest = self.rest();
            let prefix = rest.split(['\'', '"']).next().unwrap_or_default();
            let kind = prefix.to_ascii_lowercase();
            let (raw, is_bytes) = match kind.as_str() {
                "" | "u" => (false, false),
                "r" => (true, false),
                "b" => (false, true),
                "rb" | "br" => (true, true),
                _ => return Err(self.error("a name other than None, True and False")),
            };
            self.at += prefix.len();
            let begun = self.at;
            let content = self.quoted(raw, is_bytes)?;
            if is_bytes {
                let mut code = Vec::new();
                for c in content.chars() {
                    code.push(u8::try_from(c).map_err(|_| format!("bytes hold only ASCII, at byte {begun}"))?);
                }
                bytes.get_or_insert_default().extend(code);
            } else {
                text.get_or_insert_default().push_str(&content);
            }
            self.skip_blanks();
            let rest = self.rest();
            let prefix = rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len());
            if prefix > 2 || !rest.get(prefix..).unwrap_or_default().starts_with(['\'', '"']) {
                break;
            }
        }
        match (text, bytes) {
            (Some(text), None) => Ok(Literal(Value::String(text.clone()), format!("{text:?}"))),
            (None, Some(bytes)) => {
                let shown = format!("b{:?}", String::from_utf8_lossy(&bytes));
                Ok(Literal(Value::Array(bytes.into_iter().map(Value::from).collect()), shown))
            }
            _ => Err(self.error("bytes next to a string")),
        }
    }

    /// Parses the contents of single or triple quotes.
    fn quoted(&mut self, raw: bool, is_bytes: bool) -> Result<String, String> {
        let Some(quote @ ('\'' | '"')) = self.peek() else { return Err(self.error("a quote is missing")) };
        let triple = [quote; 3].iter().collect::<String>();
        let long = self.rest().starts_with(&triple);
        let end = if long { triple } else { quote.to_string() };
        self.at += end.len();
        let mut out = String::new();
        loop {
            if self.rest().starts_with(&end) {
                self.at += end.len();
                return Ok(out);
            }
            let Some(c) = self.peek() else { return Err(self.error("a quote is not closed")) };
            self.at += c.len_utf8();
            match c {
                '\n' | '\r' if !long => return Err(self.error("a line ends inside quotes")),
                '\\' if raw => {
                    out.push(c);
                    if let Some(next) = self.peek() {
                        self.at += next.len_utf8();
                        out.push(next);
                    }
                }
                '\\' => self.escape(is_bytes, &mut out)?,
                _ if is_bytes && !c.is_ascii() => return Err(self.error("bytes hold only ASCII")),
                _ => out.push(c),
            }
        }
    }

    /// Parses the part of an escape after the backslash.
    fn escape(&mut self, is_bytes: bool, out: &mut String) -> Result<(), String> {
        let Some(c) = self.peek() else { return Err(self.error("a quote is not closed")) };
        self.at += c.len_utf8();
        let plain = match c {
            '\n' => return Ok(()),
            '\\' | '\'' | '"' => c,
            'a' => '\x07',
            'b' => '\x08',
            'f' => '\x0c',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'v' => '\x0b',
            '0'..='7' => {
                self.at -= 1;
                let rest = self.rest();
                let digits = rest.bytes().take(3).take_while(|byte| matches!(byte, b'0'..=b'7')).count();
                self.code(digits, 8)?
            }
            'x' => self.code(2, 16)?,
            'u' if !is_bytes => self.code(4, 16)?,
            'U' if !is_bytes => self.code(8, 16)?,
            'N' if !is_bytes => return Err(self.error("characters by name are not supported")),
            other => {
                out.push('\\');
                other
            }
        };
        out.push(plain);
        Ok(())
    }

    /// Parses a character code with this number of digits.
    fn code(&mut self, digits: usize, radix: u32) -> Result<char, String> {
        let text = self.rest().get(..digits).unwrap_or_default();
        let all = text.len() == digits && text.chars().all(|c| c.is_digit(radix));
        let code = u32::from_str_radix(text, radix).ok().filter(|_| all).and_then(char::from_u32);
        match code {
            Some(c) => {
                self.at += digits;
                Ok(c)
            }
            None => Err(self.error("an escape that is not a character")),
        }
    }
}

fn number(digits: &str, negative: bool) -> Result<Number, &'static str> {
    const NONE: &str = "not a number";
    const LARGE: &str = "an integer of more than 64 bits, which JSON values cannot represent";
    let well_placed = !digits.starts_with('_') && !digits.ends_with('_') && !digits.contains("__");
    let plain: String = digits.chars().filter(|c| *c != '_').collect();
    let lower = plain.to_ascii_lowercase();
    if !well_placed || lower.is_empty() {
        return Err(NONE);
    }
    if lower.ends_with('j') {
        return Err("a complex number, which JSON values cannot represent");
    }
    let radix = match lower.get(..2) {
        Some("0x") => 16,
        Some("0o") => 8,
        Some("0b") => 2,
        _ => 10,
    };
    let whole = if radix == 10 { lower.as_str() } else { lower.get(2..).unwrap_or_default() };
    if !whole.is_empty() && whole.chars().all(|c| c.is_digit(radix)) {
        if radix == 10 && whole.starts_with('0') && whole.chars().any(|c| c != '0') {
            return Err("an integer with leading zeros");
        }
        let size = u64::from_str_radix(whole, radix).map_err(|_| LARGE)?;
        let signed = -i128::from(size);
        return match negative {
            false => Ok(size.into()),
            true => i64::try_from(signed).map(Number::from).map_err(|_| LARGE),
        };
    }
    let decimal = radix == 10 && lower.chars().all(|c| c.is_ascii_digit() || matches!(c, '.' | 'e' | '+' | '-'));
    let float: f64 = lower.parse().ok().filter(|_| decimal).ok_or(NONE)?;
    Number::from_f64(if negative { -float } else { float })
        .ok_or("a number too large for a 64-bit floating point value")
}

fn values(items: Vec<Literal>) -> Vec<Value> {
    items.into_iter().map(|item| item.0).collect()
}

fn joined(items: &[Literal]) -> String {
    items.iter().map(|item| item.1.as_str()).collect::<Vec<_>>().join(", ")
}

fn tuple(items: Vec<Literal>) -> Literal {
    let shown = match items.as_slice() {
        [one] => format!("({},)", one.1),
        many => format!("({})", joined(many)),
    };
    Literal(Value::Array(values(items)), shown)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn refused(text: &str) -> String {
        parse(text).expect_err(text)
    }

    #[test]
    fn n08_an_error_contains_the_reason_and_the_byte() {
        assert_eq!(refused("[1, "), "the text ends where a value is expected, at byte 4");
        assert_eq!(refused("{'a' 1}"), "a `:`, a `,` or a `}` is missing, at byte 5");
        assert_eq!(refused("[007]"), "an integer with leading zeros, at byte 1");
        assert!(refused("1e999").contains("too large"));
        assert!(refused("__import__('os')").contains("a name"));
        assert!(refused("'a' b'b'").contains("next to a string"));
    }

    #[test]
    fn n08_strings_are_parsed_as_in_python() {
        for (text, read) in [
            (r"'\101\7\q'", "A\x07\\q"),
            ("'''a\n'b''c'''", "a\n'b''c"),
            ("'a' \"b\" r'\\c'", "ab\\c"),
            (r"u'\U0001F980'", "\u{1F980}"),
        ] {
            assert_eq!(parse(text).unwrap(), Value::from(read), "{text}");
        }
        for text in [r"'\x4'", r"'\ud800'", "'a\nb'", "'a", "b'é'", r"b'\u00e9", "f'a'", r"'\N{DASH}'"] {
            refused(text);
        }
        assert_eq!(parse(r"b'\xff\u00'").unwrap(), serde_json::json!([255, 92, 117, 48, 48]));
    }

    #[test]
    fn n08_depth_is_limited() {
        let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
        assert!(parse(&nested(DEPTH_MAX)).is_ok());
        assert!(refused(&nested(DEPTH_MAX + 1)).contains("nested deeper than 100"));
        for open in ["[", "(", "{", "-", "{1:", "[(", "'"] {
            refused(&open.repeat(100_000));
        }
    }

    proptest! {
        #[test]
        fn n08_any_text_is_parsed_or_refused_without_a_panic(text in "[-+0-9.eExob_jJ'\"\\\\(){},:\\[\\]abNTurxé \n]{0,40}") {
            let _ = parse(&text);
        }

        #[test]
        fn n08_json_with_the_same_notation_in_python_has_the_same_value(
            numbers in prop::collection::vec(any::<i64>(), 0..5),
            floats in prop::collection::vec(-1e300..1e300f64, 0..5),
            texts in prop::collection::vec("[a-z é\u{1F980}]{0,8}", 0..5),
        ) {
            let value = serde_json::json!({ "numbers": numbers, "floats": floats, "texts": texts });
            prop_assert_eq!(parse(&value.to_string()).unwrap(), value);
        }
    }
}
