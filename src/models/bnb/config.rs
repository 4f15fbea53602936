//! `quantization_config` of a `config.json`, in and out.

use lowrank_kernels::four_bit::{Code, Format, ScaleFormat};
use serde_json::{Value, json};

use super::super::json::Json;
use crate::Result;

/// What the weights must agree with. In which numbers products are computed is the recipe's to say, and which modules
/// were skipped is seen in the weights.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::models) struct Settings {
    pub code: Code,
    /// Double quantisation.
    pub double: bool,
}

impl Settings {
    /// `None` if the weights are plain.
    pub fn parse(config: &Json) -> Result<Option<Self>> {
        let Some(map) = config.table("quantization_config")? else { return Ok(None) };
        let json = Json { map, path: config.path, prefix: "quantization_config.", aliases: &[] };
        let refusal = |key, expected| Err(json.refusal(key, "unsupported quantisation", expected));
        // Files older than the key hold the flags alone.
        if json.text("quant_method")?.is_some_and(|method| method != "bitsandbytes") {
            return refusal("quant_method", "bitsandbytes");
        }
        if json.flag("load_in_8bit", false)? {
            return refusal("load_in_8bit", "load_in_4bit: LLM.int8() weights are not read");
        }
        if !json.flag("load_in_4bit", false)? {
            return refusal("load_in_4bit", "true");
        }
        if json.text("bnb_4bit_quant_storage")?.is_some_and(|storage| storage != "uint8") {
            return refusal("bnb_4bit_quant_storage", "uint8");
        }
        let name = json.text("bnb_4bit_quant_type")?.unwrap_or("fp4");
        let Some(code) = Code::ALL.into_iter().find(|code| code.name() == name) else {
            return refusal("bnb_4bit_quant_type", "nf4 or fp4");
        };
        Ok(Some(Self { code, double: json.flag("bnb_4bit_use_double_quant", false)? }))
    }

    /// What weights have that bitsandbytes quantised by itself: the configuration leaves out the block.
    pub fn format(self) -> Format {
        let scales = if self.double { ScaleFormat::Nested } else { ScaleFormat::F32 };
        Format { code: self.code, block: 64, scales }
    }
}

/// The keys that transformers 5 writes. `skipped` are the linear modules left in floats, which are `dtype` in torch.
pub(crate) fn to_json(format: Format, dtype: &str, skipped: &[String]) -> Value {
    json!({
        "_load_in_4bit": true, "_load_in_8bit": false, "load_in_4bit": true, "load_in_8bit": false,
        "quant_method": "bitsandbytes",
        "bnb_4bit_compute_dtype": dtype, "bnb_4bit_quant_storage": "uint8",
        "bnb_4bit_quant_type": format.code.name(),
        "bnb_4bit_use_double_quant": format.scales == ScaleFormat::Nested,
        "llm_int8_enable_fp32_cpu_offload": false, "llm_int8_has_fp16_weight": false,
        "llm_int8_skip_modules": skipped, "llm_int8_threshold": 6.0,
    })
}
