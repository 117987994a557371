//! Chat templates: Jinja as Hugging Face's Transformers set it up (trimmed blocks, Python's string methods,
//! `tojson`, `raise_exception`, `strftime_now`), with the time given by the caller instead of the clock.
use minijinja::value::{Kwargs, Serde};
use minijinja::{Environment, Error, ErrorKind, State, Value};
use serde::Serialize;
use serde_json::ser::Formatter;
use std::ffi::{c_char, CString};
use std::io::{Result as IoResult, Write};

/// Templates come from model folders: they are stopped after this many instructions.
const FUEL: u64 = 100_000_000;
const NAME: &str = "chat_template";
const CREATED_AT: &str = "modelforge_created_at";

pub struct ChatTemplate {
    environment: Environment<'static>,
}

impl ChatTemplate {
    pub fn compile(source: &str) -> Result<Self, String> {
        let mut environment = Environment::new();
        let syntax = minijinja::syntax::SyntaxConfig::builder()
            .trim_blocks(true)
            .lstrip_blocks(true)
            .build()
            .map_err(describe)?;
        environment.set_syntax(syntax);
        environment.set_fuel(Some(FUEL));
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_function("raise_exception", raise_exception);
        environment.add_function("strftime_now", strftime_now);
        environment.add_filter("tojson", to_json);
        environment.add_template_owned(NAME, without_generation_marks(source)).map_err(describe)?;
        Ok(Self { environment })
    }

    pub fn render(&self, context: &str, created_at: i64) -> Result<String, String> {
        let mut variables: serde_json::Map<String, serde_json::Value> =
            serde_json::from_str(context).map_err(|e| e.to_string())?;
        variables.insert(CREATED_AT.into(), created_at.into());
        let template = self.environment.get_template(NAME).map_err(describe)?;
        template.render(Value::from(Serde(&variables))).map_err(describe)
    }
}

/// The message of an error with its line and what caused it.
fn describe(error: Error) -> String {
    format!("{error:#}")
}

/// `{% generation %}` marks what the assistant said, for masks; it prints its body. Here it becomes a condition
/// that always holds, with the blanks around it treated the same.
fn without_generation_marks(source: &str) -> String {
    let mut result = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(start) = rest.find("{%") {
        let Some(length) = rest[start..].find("%}") else { break };
        let tag = &rest[start..start + length + 2];
        let inner = &tag[2..tag.len() - 2];
        let word = inner.trim_matches(|c: char| c.is_whitespace() || c == '-' || c == '+');
        result.push_str(&rest[..start]);
        match word {
            "generation" => result.push_str(&tag.replacen("generation", "if true", 1)),
            "endgeneration" => result.push_str(&tag.replacen("endgeneration", "endif", 1)),
            _ => result.push_str(tag),
        }
        rest = &rest[start + length + 2..];
    }
    result.push_str(rest);
    result
}

fn raise_exception(message: String) -> Result<String, Error> {
    Err(Error::new(ErrorKind::InvalidOperation, message))
}

fn strftime_now(state: &State, format: String) -> Result<String, Error> {
    let invalid = |message: &'static str| Error::new(ErrorKind::InvalidOperation, message);
    let seconds = state
        .lookup(CREATED_AT)
        .and_then(|value| value.as_i64())
        .ok_or_else(|| invalid("strftime_now: no creation time"))?;
    if format.is_empty() {
        return Ok(format);
    }
    let format = CString::new(format).map_err(|_| invalid("strftime_now: NUL in the format"))?;
    let mut text = [0u8; 512];
    let length = unsafe {
        let mut parts: libc::tm = std::mem::zeroed();
        if libc::gmtime_r(&seconds, &mut parts).is_null() {
            return Err(invalid("strftime_now: the creation time is out of range"));
        }
        libc::strftime(text.as_mut_ptr() as *mut c_char, text.len(), format.as_ptr(), &parts)
    };
    if length == 0 {
        return Err(invalid("strftime_now: the date is longer than 511 bytes"));
    }
    Ok(String::from_utf8_lossy(&text[..length]).into_owned())
}

/// Python's json.dumps: separators as asked for, indentation, ASCII only on request.
struct PythonFormatter {
    item: String,
    key: String,
    indent: Option<usize>,
    ascii: bool,
    depth: usize,
    has_value: bool,
}

impl PythonFormatter {
    fn begin<W: ?Sized + Write>(&mut self, writer: &mut W, mark: &[u8]) -> IoResult<()> {
        self.depth += 1;
        self.has_value = false;
        writer.write_all(mark)
    }
    fn end<W: ?Sized + Write>(&mut self, writer: &mut W, mark: &[u8]) -> IoResult<()> {
        self.depth -= 1;
        if self.has_value {
            self.new_line(writer)?;
        }
        self.has_value = true;
        writer.write_all(mark)
    }
    fn new_line<W: ?Sized + Write>(&self, writer: &mut W) -> IoResult<()> {
        match self.indent {
            Some(width) => write!(writer, "\n{}", " ".repeat(width * self.depth)),
            None => Ok(()),
        }
    }
    fn item<W: ?Sized + Write>(&mut self, writer: &mut W, first: bool) -> IoResult<()> {
        if !first {
            writer.write_all(self.item.as_bytes())?;
        }
        self.new_line(writer)
    }
}

impl Formatter for PythonFormatter {
    fn begin_array<W: ?Sized + Write>(&mut self, writer: &mut W) -> IoResult<()> {
        self.begin(writer, b"[")
    }
    fn end_array<W: ?Sized + Write>(&mut self, writer: &mut W) -> IoResult<()> {
        self.end(writer, b"]")
    }
    fn begin_array_value<W: ?Sized + Write>(&mut self, writer: &mut W, first: bool) -> IoResult<()> {
        self.item(writer, first)
    }
    fn end_array_value<W: ?Sized + Write>(&mut self, _: &mut W) -> IoResult<()> {
        self.has_value = true;
        Ok(())
    }
    fn begin_object<W: ?Sized + Write>(&mut self, writer: &mut W) -> IoResult<()> {
        self.begin(writer, b"{")
    }
    fn end_object<W: ?Sized + Write>(&mut self, writer: &mut W) -> IoResult<()> {
        self.end(writer, b"}")
    }
    fn begin_object_key<W: ?Sized + Write>(&mut self, writer: &mut W, first: bool) -> IoResult<()> {
        self.item(writer, first)
    }
    fn begin_object_value<W: ?Sized + Write>(&mut self, writer: &mut W) -> IoResult<()> {
        writer.write_all(self.key.as_bytes())
    }
    fn end_object_value<W: ?Sized + Write>(&mut self, _: &mut W) -> IoResult<()> {
        self.has_value = true;
        Ok(())
    }
    fn write_string_fragment<W: ?Sized + Write>(&mut self, writer: &mut W, fragment: &str) -> IoResult<()> {
        if !self.ascii {
            return writer.write_all(fragment.as_bytes());
        }
        for c in fragment.chars() {
            if c.is_ascii() {
                writer.write_all(&[c as u8])?;
            } else {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    write!(writer, "\\u{unit:04x}")?;
                }
            }
        }
        Ok(())
    }
}

fn sorted(value: serde_json::Value) -> serde_json::Value {
    match value {
        serde_json::Value::Object(map) => {
            let mut entries: Vec<_> = map.into_iter().map(|(key, value)| (key, sorted(value))).collect();
            entries.sort_by(|a, b| a.0.cmp(&b.0));
            serde_json::Value::Object(entries.into_iter().collect())
        }
        serde_json::Value::Array(items) => items.into_iter().map(sorted).collect(),
        other => other,
    }
}

fn to_json(value: Value, options: Kwargs) -> Result<Value, Error> {
    let bad = |e: serde_json::Error| Error::new(ErrorKind::BadSerialization, e.to_string());
    let indent: Option<usize> = options.get("indent")?;
    let separators: Option<Vec<String>> = options.get("separators")?;
    let ascii: Option<bool> = options.get("ensure_ascii")?;
    let sort_keys: Option<bool> = options.get("sort_keys")?;
    options.assert_all_used()?;
    let (item, key) = match separators.as_deref() {
        None => (if indent.is_some() { "," } else { ", " }.to_string(), ": ".to_string()),
        Some([item, key]) => (item.clone(), key.clone()),
        Some(_) => {
            return Err(Error::new(ErrorKind::InvalidOperation, "tojson: separators takes two strings"))
        }
    };
    let mut json = serde_json::to_value(&value).map_err(bad)?;
    if sort_keys.unwrap_or(false) {
        json = sorted(json);
    }
    let formatter =
        PythonFormatter { item, key, indent, ascii: ascii.unwrap_or(false), depth: 0, has_value: false };
    let mut text = Vec::new();
    json.serialize(&mut serde_json::Serializer::with_formatter(&mut text, formatter)).map_err(bad)?;
    String::from_utf8(text)
        .map(Value::from_safe_string)
        .map_err(|e| Error::new(ErrorKind::BadSerialization, e.to_string()))
}
