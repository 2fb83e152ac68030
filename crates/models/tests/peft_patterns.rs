//! What PEFT's patterns choose, and adapters of every kind that PEFT makes: `tools/fixtures/peft_patterns.py`.

mod support;

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use candlewick_models::{
    AdapterConfig, Dtype, EncoderInput, EncoderWant, Kind, LoadOptions, Targets, load_causal, load_encoder,
};
use serde_json::{Map, Value, json};
use support::sequences::all_logits;
use support::{Fixture, backends, root};

/// As PEFT's `LoraConfig(**fields)`.
fn targets(fields: &Value) -> Result<Targets, String> {
    let mut config = fields.as_object().cloned().unwrap_or_default();
    config.entry("r").or_insert(json!(8));
    config.entry("lora_alpha").or_insert(json!(8));
    // The text keeps the order of its keys, which a `Value` sorts: of `rank_pattern` the ranks ascend.
    let mut patterns: Vec<(String, u64)> = config
        .remove("rank_pattern")
        .and_then(|patterns| serde_json::from_value::<Map<String, Value>>(patterns).ok())
        .unwrap_or_default()
        .into_iter()
        .map(|(key, rank)| (key, rank.as_u64().unwrap()))
        .collect();
    patterns.sort_by_key(|(_, rank)| *rank);
    let patterns: Vec<String> = patterns.iter().map(|(key, rank)| format!("{}:{rank}", json!(key))).collect();
    let text = json!(config).to_string();
    let text = format!("{},\"rank_pattern\":{{{}}}}}", &text[..text.len() - 1], patterns.join(","));
    let config: AdapterConfig = serde_json::from_str(&text).map_err(|error| error.to_string())?;
    Targets::new(&config, &[]).map_err(|error| format!("{} {error}", error.code()))
}

#[test]
fn patterns_choose_what_peft_chooses() {
    let rules: Value =
        serde_json::from_str(&fs::read_to_string(root().join("peft-patterns/rules.json")).unwrap()).unwrap();
    let names: Vec<&str> =
        rules["names"].as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
    let (mut compared, mut refused) = (0, 0);
    for case in rules["cases"].as_array().unwrap() {
        let config = &case["config"];
        let found = targets(config);
        if !case["error"].is_null() || case["linear"] == false {
            let error = found.expect_err(&config.to_string());
            assert!(error.starts_with("CONFIG_INVALID"), "{config}: {error}");
            let field = ["target_modules", "exclude_modules", "rank_pattern", "layers_pattern"];
            assert!(field.iter().any(|field| error.contains(field)), "{config}: {error}");
            refused += 1;
            continue;
        }
        let targets = found.unwrap_or_else(|error| panic!("{config}: {error}"));
        let said: String = names
            .iter()
            .map(|name| match targets.refusal(name, Kind::Linear) {
                None => '1',
                Some("exclude_modules" | "modules_to_save") => 'x',
                Some(_) => '0',
            })
            .collect();
        assert_eq!(said, case["said"].as_str().unwrap(), "{config}");
        let ranks: Vec<usize> = names.iter().map(|name| targets.rank_of(name)).collect();
        assert_eq!(json!(ranks), case["ranks"], "{config}");
        compared += names.len();
    }
    assert!(compared >= 3000 && refused >= 15, "{compared} {refused}");
}

#[test]
fn patterns_that_explode_elsewhere_are_harmless_or_refused_fast() {
    let begun = Instant::now();
    let long = "a".repeat(1_000_000);
    for pattern in ["(a+)+$", "(a|a)*b", "((a*)*)*$", "(.*.*.*.*.*.*)*x"] {
        let targets = targets(&json!({ "target_modules": pattern })).unwrap();
        targets.refusal(&"a".repeat(10_000), Kind::Linear);
    }
    for (field, value) in [
        ("target_modules", json!(long)),
        ("exclude_modules", json!([long])),
        ("target_modules", json!("(a{999}){999}")),
        ("rank_pattern", json!({ &long: 2 })),
        ("target_modules", json!("(".repeat(60_000) + &")".repeat(4_000))),
        ("target_modules", json!("[a-z]{50000}")),
        ("modules_to_save", json!(vec!["a".repeat(60_000); 100])),
        ("modules_to_save", json!(vec!["a"; 20_000])),
    ] {
        let mut config = json!({ "target_modules": ["c_attn"] });
        config[field] = value;
        let config: Value = if field == "rank_pattern" { config } else { config.clone() };
        let error = targets(&config).expect_err(field);
        assert!(error.starts_with("CONFIG_INVALID") && error.contains(field), "{error}");
        assert!(error.len() < 500, "{}", error.len());
    }
    // Minutes, where the engine backtracks.
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
}

fn logits(source: &str, is_causal: bool, options: &LoadOptions, ids: &[u32]) -> Result<Vec<f32>, String> {
    let coded = |error: candlewick_models::ModelError| format!("{} {error}", error.code());
    if is_causal {
        let mut model = load_causal(source, options, &()).map_err(coded)?.model;
        return Ok(all_logits(model.as_mut(), ids));
    }
    let mut model = load_encoder(source, options, &()).map_err(coded)?.model;
    let input = EncoderInput { ids: ids.to_vec(), type_ids: vec![0; ids.len()], ..Default::default() };
    let want = EncoderWant { logits: true, ..Default::default() };
    Ok(model.forward(&[input], &want, &|| false).map_err(coded)?.remove(0).logits)
}

fn each(fixture: &Fixture) -> Vec<(String, bool, Vec<u32>)> {
    let bases = fixture.expected["base"].as_object().unwrap();
    let one = |(name, base): (&String, &Value)| {
        let ids = serde_json::from_value(fixture.expected["input_ids"][name].clone()).unwrap();
        (name.clone(), base.as_str().unwrap().starts_with("gpt2"), ids)
    };
    bases.iter().map(one).collect()
}

#[test]
fn logits_equal_peft() {
    let fixture = Fixture::open("peft-patterns");
    let each = each(&fixture);
    assert!(each.len() >= 50, "{}", each.len());
    let mut wrong = Vec::new();
    for (name, is_causal, ids) in each {
        for options in backends() {
            let source = format!("{}/{name}", fixture.source());
            let expected = fixture.values(&format!("{name}.logits"));
            match logits(&source, is_causal, &options, &ids) {
                // Whose decoder has no bias in PEFT.
                Err(error) if name == "mlm-tokens" => {
                    assert!(
                        error.starts_with("UNSUPPORTED_MODEL") && error.contains("trainable_token_indices")
                    );
                }
                Err(error) => wrong.push(format!("{name}: {error}")),
                Ok(found) => {
                    let far = found.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                    if found.len() != expected.len() || far.is_nan() || far > 1e-4 {
                        wrong.push(format!("{name} (reference: {}): {far}", options.reference));
                    }
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn beside_each_other_they_give_the_same_or_are_refused_by_name() {
    let fixture = Fixture::open("peft-patterns");
    let (mut same, mut refused) = (0, 0);
    for (name, is_causal, ids) in each(&fixture) {
        if !is_causal {
            continue;
        }
        let base = Fixture::open(fixture.expected["base"][&name].as_str().unwrap());
        let adapters = vec![(name.clone(), format!("{}/{name}", fixture.source()))];
        let options = LoadOptions { dtype: Some(Dtype::F32), adapters, ..Default::default() };
        match load_causal(base.source(), &options, &()) {
            Ok(mut loaded) => {
                let mut blocks = support::sequences::Blocks::of(loaded.model.as_ref());
                let mut begun = blocks.sequence(ids.len());
                begun.adapter = Some(0);
                let found =
                    support::sequences::pass(loaded.model.as_mut(), &mut [(&mut begun, &ids, ids.len())]);
                let expected = fixture.values(&format!("{name}.logits"));
                let far = found[0].iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                assert!(far <= 1e-4, "{name}: {far}");
                same += 1;
            }
            Err(error) => {
                assert_eq!(error.code(), "UNSUPPORTED_MODEL", "{name}: {error}");
                refused += 1;
            }
        }
    }
    assert!(same >= 20 && refused >= 10, "{same} {refused}");
}

/// A copy of an adapter whose configuration and tensors are changed.
fn altered(name: &str, change: impl Fn(&mut Map<String, Value>)) -> tempfile::TempDir {
    let (folder, from) = (tempfile::tempdir().unwrap(), root().join("peft-patterns").join(name));
    let text = fs::read_to_string(from.join("adapter_config.json")).unwrap();
    let mut config: Map<String, Value> = serde_json::from_str(&text).unwrap();
    let base = config["base_model_name_or_path"].as_str().unwrap().trim_start_matches("../../").to_string();
    config.insert("base_model_name_or_path".into(), json!(root().join(base)));
    change(&mut config);
    fs::write(folder.path().join("adapter_config.json"), json!(config).to_string()).unwrap();
    for file in ["adapter_model.safetensors", "adapter_model.bin"] {
        if from.join(file).is_file() {
            fs::copy(from.join(file), folder.path().join(file)).unwrap();
        }
    }
    folder
}

/// Renames tensors of the copy: what a name becomes, or nothing.
fn renamed(folder: &Path, rename: impl Fn(&str) -> Option<String>) {
    let path = folder.join("adapter_model.safetensors");
    let bytes = fs::read(&path).unwrap();
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header: Map<String, Value> = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
    let renamed: Map<String, Value> =
        header.into_iter().filter_map(|(name, value)| rename(&name).map(|name| (name, value))).collect();
    let header = json!(renamed).to_string();
    let mut out = (header.len() as u64).to_le_bytes().to_vec();
    out.extend(header.as_bytes());
    out.extend(&bytes[8 + length..]);
    fs::write(path, out).unwrap();
}

#[test]
fn a_configuration_that_says_other_than_the_weights_is_refused_by_name() {
    let refusal = |folder: &Path, names: &str| {
        let path = folder.to_str().unwrap();
        let is_bert = fs::read_to_string(folder.join("adapter_config.json")).unwrap().contains("bert-");
        let error = logits(path, !is_bert, &LoadOptions::default(), &[1, 2]).expect_err(names);
        assert!(error.contains(names) && error.len() < 600, "{error}");
        error.split_once(' ').unwrap().0.to_string()
    };
    for (name, field, value, names, code) in [
        // All matrices are for other modules, some are, and some are missing.
        ("layers", "target_modules", json!(["c_proj"]), "target_modules", "CONFIG_INVALID"),
        ("exclude-list", "target_modules", json!(["c_attn"]), "target_modules", "CONFIG_INVALID"),
        ("exclude-list", "exclude_modules", json!(["c_proj"]), "exclude_modules", "CONFIG_INVALID"),
        ("exclude-list", "exclude_modules", json!(null), "target_modules", "TENSOR_MISSING"),
        ("string", "target_modules", json!("c_attn"), "target_modules", "CONFIG_INVALID"),
        ("string", "target_modules", json!(r".*\.(attn|mlp)(\..*)?"), "target_modules", "CONFIG_INVALID"),
        ("string", "target_modules", json!(r".*c_(?=attn)attn"), "look-ahead", "CONFIG_INVALID"),
        ("layers", "layers_to_transform", json!([0]), "layers_to_transform", "CONFIG_INVALID"),
        ("layers", "layers_to_transform", json!([0, 1, 2]), "target_modules", "TENSOR_MISSING"),
        ("layers-pattern", "layers_pattern", json!("no"), "layers_to_transform", "CONFIG_INVALID"),
        ("layers-pattern", "layers_to_transform", json!(null), "layers_pattern", "CONFIG_INVALID"),
        ("rank-regex", "rank_pattern", json!({ r"h\.[01]\.mlp\..*": 1 }), "lora_A", "TENSOR_SHAPE"),
        ("rank-regex", "rank_pattern", json!({}), "lora_A", "TENSOR_SHAPE"),
        ("rank-regex", "rank_pattern", json!({ "(": 1 }), "rank_pattern", "CONFIG_INVALID"),
        ("rank-regex", "r", json!(0), "lora_A", "TENSOR_SHAPE"),
        ("rank-regex", "lora_alpha", json!(1e300), "lora_alpha", "CONFIG_INVALID"),
        ("alpha-regex", "alpha_pattern", json!({ "c_fc": -1e300 }), "c_fc", "CONFIG_INVALID"),
        ("dora", "use_dora", json!(false), "use_dora", "CONFIG_INVALID"),
        ("layers", "use_dora", json!(true), "lora_magnitude_vector", "TENSOR_MISSING"),
        ("lora-bias", "lora_bias", json!(false), "lora_bias", "CONFIG_INVALID"),
        ("layers", "lora_bias", json!(true), "lora_B.bias", "TENSOR_MISSING"),
        ("lora-bias", "use_dora", json!(true), "lora_bias", "CONFIG_INVALID"),
        ("layers", "bias", json!("all"), "bias", "TENSOR_MISSING"),
        ("layers", "bias", json!("some"), "bias", "CONFIG_INVALID"),
        ("layers", "modules_to_save", json!(["ln_f"]), "modules_to_save", "TENSOR_MISSING"),
        ("layers", "modules_to_save", json!(["attn"]), "modules_to_save", "CONFIG_INVALID"),
        ("layers", "trainable_token_indices", json!([1, 2]), "trainable_tokens_delta", "TENSOR_MISSING"),
        ("tokens", "trainable_token_indices", json!(null), "trainable_token_indices", "CONFIG_INVALID"),
        ("tokens", "trainable_token_indices", json!([1]), "trainable_tokens_delta", "TENSOR_SHAPE"),
        ("tokens", "trainable_token_indices", json!([1, 2, 3, 4, 9000]), "wte", "TENSOR_SHAPE"),
        (
            "tokens",
            "trainable_token_indices",
            json!({ "wpe": [1] }),
            "trainable_token_indices",
            "UNSUPPORTED_MODEL",
        ),
        ("layers", "layer_replication", json!([[0, 2], [1, 3]]), "layer_replication", "UNSUPPORTED_MODEL"),
        ("embedding", "ensure_weight_tying", json!(true), "ensure_weight_tying", "UNSUPPORTED_MODEL"),
        ("pickle", "rank_pattern", json!({}), "lora_A", "TENSOR_SHAPE"),
        ("bert-layers", "layers_to_transform", json!([0]), "layers_to_transform", "CONFIG_INVALID"),
        ("bert-exclude", "exclude_modules", json!(null), "target_modules", "TENSOR_MISSING"),
    ] {
        let folder = altered(name, |config| {
            config.insert(field.into(), value.clone());
        });
        assert_eq!(refusal(folder.path(), names), code, "{name}: {field}: {value}");
    }
    let one = "base_model.model.transformer.h.0.attn.c_attn";
    for (what, from, to, names, code) in [
        ("no A", "lora_A.weight", None, "lora_A.weight", "TENSOR_MISSING"),
        ("no B", "lora_B.weight", None, "lora_B.weight", "TENSOR_MISSING"),
        (
            "another name",
            "lora_B.weight",
            Some("lora_B.default.weight"),
            "lora_B.default",
            "UNSUPPORTED_MODEL",
        ),
        ("an embedding's", "lora_A.weight", Some("lora_embedding_A"), "lora_embedding", "WEIGHTS_CORRUPT"),
    ] {
        let folder = altered("layers", |_| ());
        renamed(folder.path(), |name| match name == format!("{one}.{from}") {
            true => to.map(|to| format!("{one}.{to}")),
            false => Some(name.to_string()),
        });
        assert_eq!(refusal(folder.path(), names), code, "{what}");
    }
}

#[test]
fn older_names_of_modules_that_are_held_whole_are_read() {
    let fixture = Fixture::open("peft-patterns");
    let ids: Vec<u32> = serde_json::from_value(fixture.expected["input_ids"]["bert-save"].clone()).unwrap();
    let expected = fixture.values("bert-save.logits");
    for middle in ["modules_to_save.default.", "modules_to_save."] {
        let folder = altered("bert-save", |_| ());
        renamed(folder.path(), |name| {
            let to = |part: &str| name.replace(&format!("{part}."), &format!("{part}.{middle}"));
            Some(if name.contains("classifier") { to("classifier") } else { to("pooler") })
        });
        let found = logits(folder.path().to_str().unwrap(), false, &LoadOptions::default(), &ids).unwrap();
        let far = found.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(far <= 1e-4, "{middle}: {far}");
    }
}
