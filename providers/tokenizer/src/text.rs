//! Text to ids and back, as Python's fast tokenizers do it.
use tokenizers::processors::template::TemplateProcessing;
use tokenizers::{PostProcessorWrapper, Tokenizer};

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

    pub fn surround(&mut self, first: Option<&str>, last: Option<&str>) -> Result<(), String> {
        let mut special = Vec::new();
        for token in first.iter().chain(last.iter()) {
            let id = self.id(token).ok_or_else(|| format!("the token '{token}' is not in the vocabulary"))?;
            special.push((token.to_string(), id));
        }
        // A piece list, not a template string: token names may hold blanks and '$'.
        let piece = |token: &str| serde_json::json!({"SpecialToken": {"id": token, "type_id": 0}});
        let mut single: Vec<serde_json::Value> = first.map(piece).into_iter().collect();
        single.push(serde_json::json!({"Sequence": {"id": "A", "type_id": 0}}));
        single.extend(last.map(piece));
        let mut pair = single.clone();
        pair.push(serde_json::json!({"Sequence": {"id": "B", "type_id": 1}}));
        let tokens: serde_json::Map<String, serde_json::Value> = special
            .into_iter()
            .map(|(token, id)| {
                let entry = serde_json::json!({"id": token, "ids": [id], "tokens": [token]});
                (token, entry)
            })
            .collect();
        let template: TemplateProcessing =
            serde_json::from_value(serde_json::json!({"single": single, "pair": pair, "special_tokens": tokens}))
                .map_err(|e| e.to_string())?;
        self.tokenizer.with_post_processor(Some(PostProcessorWrapper::Template(template)));
        Ok(())
    }

    pub fn encode(&self, text: &str, add_special: bool) -> Result<Vec<u32>, String> {
        let encoding = self.tokenizer.encode_fast(text, add_special).map_err(|e| e.to_string())?;
        Ok(encoding.get_ids().to_vec())
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
