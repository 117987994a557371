//! Text to ids and back, as Python's fast tokenizers do it.
use tokenizers::Tokenizer;

pub struct TextTokenizer {
    tokenizer: Tokenizer,
}

impl TextTokenizer {
    /// Truncation and padding that a tokenizer.json may carry are switched off: Python's tokenizers use them
    /// only when a call asks for them, and nothing here pads.
    pub fn from_json(json: &[u8]) -> Result<Self, String> {
        let mut tokenizer = Tokenizer::from_bytes(json).map_err(|e| e.to_string())?;
        tokenizer.with_truncation(None).map_err(|e| e.to_string())?;
        tokenizer.with_padding(None);
        Ok(Self { tokenizer })
    }

    pub fn encode(&self, text: &str, add_special: bool) -> Result<Vec<u32>, String> {
        let encoding = self.tokenizer.encode_fast(text, add_special).map_err(|e| e.to_string())?;
        Ok(encoding.get_ids().to_vec())
    }

    /// The ids, and for each token where in the text its word ends, in bytes, if it is the word's last one; else 0.
    /// Words are the pre-tokenizer's.
    pub fn encode_words(&self, text: &str, add_special: bool) -> Result<(Vec<u32>, Vec<u32>), String> {
        let encoding = self.tokenizer.encode(text, add_special).map_err(|e| e.to_string())?;
        let (words, offsets) = (encoding.get_word_ids(), encoding.get_offsets());
        let ends = (0..words.len()).map(|i| match words[i] {
            Some(word) if words.get(i + 1) != Some(&Some(word)) => offsets[i].1 as u32,
            _ => 0,
        });
        Ok((encoding.get_ids().to_vec(), ends.collect()))
    }

    pub fn decode(&self, ids: &[u32], skip_special: bool) -> Result<String, String> {
        self.tokenizer.decode(ids, skip_special).map_err(|e| e.to_string())
    }

    pub fn id(&self, token: &str) -> Option<u32> {
        self.tokenizer.token_to_id(token)
    }

    pub fn size(&self) -> usize {
        let largest = self.tokenizer.get_vocab(true).into_values().max();
        largest.map_or(0, |id| id as usize + 1)
    }
}
