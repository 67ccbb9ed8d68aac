//! T5-small behind axum with candle-transformers and tokenizers, as its users
//! write it: work inline in the handler.
//!
//!     candle null|delay|real FOLDER PORT
//!
//! null answers a fixed result after parsing and tokenizing, delay sleeps
//! 20 ms for each step instead of a forward pass.

use std::{sync::Arc, time::Duration};

use axum::{Json, Router, extract::State, http::StatusCode, routing::post};
use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use candle_transformers::models::t5;
use serde::{Deserialize, Serialize};
use tokenizers::Tokenizer;

const ANSWER: [u32; 8] = [3, 9, 19, 207, 13, 8, 1782, 1];

#[derive(Deserialize)]
struct Parameters {
    max_new_tokens: usize,
}

#[derive(Deserialize)]
struct Request {
    inputs: String,
    parameters: Parameters,
}

#[derive(Serialize)]
struct Answer {
    generated_text: String,
}

struct App {
    how: String,
    tokenizer: Tokenizer,
    model: Option<t5::T5ForConditionalGeneration>,
    config: t5::Config,
}

fn run(app: &App, ids: &[u32], n: usize) -> anyhow::Result<Vec<u32>> {
    // a model keeps its cache: each request has a copy, which shares weights
    let mut model = app.model.clone().expect("real");
    let device = Device::Cpu;
    let input = Tensor::new(ids, &device)?.unsqueeze(0)?;
    let encoded = model.encode(&input)?;
    let mut out = vec![app.config.decoder_start_token_id.unwrap_or(0) as u32];

    for _ in 0..n {
        let last = &out[out.len() - 1..];
        let decoder = Tensor::new(last, &device)?.unsqueeze(0)?;
        let logits = model.decode(&decoder, &encoded)?.squeeze(0)?;
        let token = logits.argmax(0)?.to_scalar::<u32>()?;
        out.push(token);
        if token == app.config.eos_token_id as u32 {
            break;
        }
    }
    Ok(out)
}

async fn generate(
    State(app): State<Arc<App>>,
    Json(request): Json<Request>,
) -> Result<Json<Answer>, StatusCode> {
    let failed = |_| StatusCode::INTERNAL_SERVER_ERROR;
    let n = request.parameters.max_new_tokens;
    let encoding = app
        .tokenizer
        .encode(request.inputs, true)
        .map_err(|_| StatusCode::BAD_REQUEST)?;

    let ids = match app.how.as_str() {
        "real" => run(&app, encoding.get_ids(), n).map_err(failed)?,
        "delay" => {
            for _ in 0..n {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            ANSWER[..n.min(8)].to_vec()
        }
        _ => ANSWER[..n.min(8)].to_vec(),
    };
    let generated_text = app
        .tokenizer
        .decode(&ids, true)
        .map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?;

    Ok(Json(Answer { generated_text }))
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().collect();
    let folder = &args[2];
    let text = std::fs::read_to_string(format!("{folder}/config.json"))?;
    let config: t5::Config = serde_json::from_str(&text)?;
    let tokenizer = Tokenizer::from_file(format!("{folder}/tokenizer.json"))
        .map_err(anyhow::Error::msg)?;
    let weights = format!("{folder}/model.safetensors");
    let vb = unsafe {
        VarBuilder::from_mmaped_safetensors(
            &[weights],
            DType::F32,
            &Device::Cpu,
        )?
    };
    let model = Some(t5::T5ForConditionalGeneration::load(vb, &config)?);
    let app = Arc::new(App {
        how: args[1].clone(),
        tokenizer,
        model,
        config,
    });
    let router = Router::new()
        .route("/generate", post(generate))
        .with_state(app);
    let at = format!("127.0.0.1:{}", args[3]);
    let listener = tokio::net::TcpListener::bind(at).await?;

    axum::serve(listener, router).await?;
    Ok(())
}
