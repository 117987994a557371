//! The C border. Every call returns 0 for success and 1 for failure; on failure `*error` holds a message.
//! Whatever is handed out (`Text`, `Ids`, handles) is given back with its `_free` function. A panic never
//! crosses: it becomes a message. Handles may be used by several threads at once, `_free` by one.
mod chat;
mod text;

use chat::ChatTemplate;
use std::any::Any;
use std::ffi::{c_char, c_int};
use std::panic::{catch_unwind, set_hook, AssertUnwindSafe};
use std::ptr::null_mut;
use std::slice;
use std::sync::Once;
use text::TextTokenizer;

/// UTF-8 of `length` bytes, followed by a NUL that `length` does not count.
#[repr(C)]
pub struct Text {
    data: *mut c_char,
    length: usize,
}

#[repr(C)]
pub struct Ids {
    data: *mut u32,
    count: usize,
}

fn give_text(out: *mut Text, value: String) {
    let length = value.len();
    let mut bytes = value.into_bytes();
    bytes.push(0);
    let data = Box::into_raw(bytes.into_boxed_slice()) as *mut c_char;
    unsafe { *out = Text { data, length } }
}

fn reason(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("no reason given")
}

/// Runs `work`; an error (1) or why it panicked (2) is written to `*error`. A panic is told there only: standard
/// error belongs to the program. The tokenizers crate panics on some files that are damaged, when it opens them
/// or when it uses them.
fn guard(error: *mut Text, work: impl FnOnce() -> Result<(), String>) -> c_int {
    static QUIET: Once = Once::new();
    QUIET.call_once(|| set_hook(Box::new(|_| {})));
    let (code, message) = match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(())) => return 0,
        Ok(Err(message)) => (1, message),
        Err(panic) => (2, reason(&*panic).to_string()),
    };
    give_text(error, message);
    code
}

unsafe fn bytes<'a>(data: *const c_char, length: usize) -> &'a [u8] {
    if length == 0 {
        &[]
    } else {
        slice::from_raw_parts(data as *const u8, length)
    }
}

unsafe fn utf8<'a>(data: *const c_char, length: usize) -> Result<&'a str, String> {
    std::str::from_utf8(bytes(data, length)).map_err(|e| format!("not UTF-8 at byte {}", e.valid_up_to()))
}

/// # Safety
/// `json` points to `length` bytes; `out` and `error` may be written.
#[no_mangle]
pub unsafe extern "C" fn mf_rust_tokenizer_open(
    json: *const c_char,
    length: usize,
    out: *mut *mut TextTokenizer,
    error: *mut Text,
) -> c_int {
    guard(error, || {
        *out = null_mut();
        *out = Box::into_raw(Box::new(TextTokenizer::from_json(bytes(json, length))?));
        Ok(())
    })
}

unsafe fn give_ids(out: *mut Ids, ids: Vec<u32>) {
    let ids = ids.into_boxed_slice();
    let count = ids.len();
    *out = Ids { data: Box::into_raw(ids) as *mut u32, count };
}

/// `ends` (may be null) gets as many numbers as there are ids: see `encode_words`.
///
/// # Safety
/// As the pointers say.
#[no_mangle]
pub unsafe extern "C" fn mf_rust_tokenizer_encode(
    handle: *const TextTokenizer,
    text: *const c_char,
    length: usize,
    add_special: c_int,
    out: *mut Ids,
    ends: *mut Ids,
    error: *mut Text,
) -> c_int {
    guard(error, || {
        let text = utf8(text, length)?;
        if ends.is_null() {
            give_ids(out, (*handle).encode(text, add_special != 0)?);
        } else {
            let (ids, bytes) = (*handle).encode_words(text, add_special != 0)?;
            give_ids(out, ids);
            give_ids(ends, bytes);
        }
        Ok(())
    })
}

/// # Safety
/// As the pointers say.
#[no_mangle]
pub unsafe extern "C" fn mf_rust_tokenizer_decode(
    handle: *const TextTokenizer,
    ids: *const u32,
    count: usize,
    skip_special: c_int,
    out: *mut Text,
    error: *mut Text,
) -> c_int {
    guard(error, || {
        let ids = if count == 0 { &[][..] } else { slice::from_raw_parts(ids, count) };
        give_text(out, (*handle).decode(ids, skip_special != 0)?);
        Ok(())
    })
}

/// The id of a token, -1 where there is none.
///
/// # Safety
/// As the pointers say.
#[no_mangle]
pub unsafe extern "C" fn mf_rust_tokenizer_id(
    handle: *const TextTokenizer,
    token: *const c_char,
    length: usize,
) -> i64 {
    catch_unwind(AssertUnwindSafe(|| {
        utf8(token, length).ok().and_then(|token| (*handle).id(token)).map_or(-1, i64::from)
    }))
    .unwrap_or(-1)
}

/// One more than the largest id.
///
/// # Safety
/// As the pointers say.
#[no_mangle]
pub unsafe extern "C" fn mf_rust_tokenizer_size(handle: *const TextTokenizer) -> usize {
    catch_unwind(AssertUnwindSafe(|| (*handle).size())).unwrap_or(0)
}

/// # Safety
/// `handle` came from `mf_rust_tokenizer_open` or is null, and is not used again.
#[no_mangle]
pub unsafe extern "C" fn mf_rust_tokenizer_free(handle: *mut TextTokenizer) {
    if !handle.is_null() {
        let _ = catch_unwind(AssertUnwindSafe(|| drop(Box::from_raw(handle))));
    }
}

/// # Safety
/// As the pointers say.
#[no_mangle]
pub unsafe extern "C" fn mf_rust_chat_compile(
    source: *const c_char,
    length: usize,
    out: *mut *mut ChatTemplate,
    error: *mut Text,
) -> c_int {
    guard(error, || {
        *out = null_mut();
        *out = Box::into_raw(Box::new(ChatTemplate::compile(utf8(source, length)?)?));
        Ok(())
    })
}

/// `context` is a JSON object: the variables that the template sees. `created_at` (seconds since 1970, UTC) is
/// the time that `strftime_now` prints.
///
/// # Safety
/// As the pointers say.
#[no_mangle]
pub unsafe extern "C" fn mf_rust_chat_render(
    handle: *const ChatTemplate,
    context: *const c_char,
    length: usize,
    created_at: i64,
    out: *mut Text,
    error: *mut Text,
) -> c_int {
    guard(error, || {
        give_text(out, (*handle).render(utf8(context, length)?, created_at)?);
        Ok(())
    })
}

/// # Safety
/// `handle` came from `mf_rust_chat_compile` or is null, and is not used again.
#[no_mangle]
pub unsafe extern "C" fn mf_rust_chat_free(handle: *mut ChatTemplate) {
    if !handle.is_null() {
        let _ = catch_unwind(AssertUnwindSafe(|| drop(Box::from_raw(handle))));
    }
}

/// # Safety
/// `text` was filled by a call of this library and is given back once.
#[no_mangle]
pub unsafe extern "C" fn mf_rust_text_free(text: Text) {
    if !text.data.is_null() {
        drop(Box::from_raw(std::ptr::slice_from_raw_parts_mut(text.data as *mut u8, text.length + 1)));
    }
}

/// # Safety
/// `ids` was filled by a call of this library and is given back once.
#[no_mangle]
pub unsafe extern "C" fn mf_rust_ids_free(ids: Ids) {
    if !ids.data.is_null() {
        drop(Box::from_raw(std::ptr::slice_from_raw_parts_mut(ids.data, ids.count)));
    }
}
