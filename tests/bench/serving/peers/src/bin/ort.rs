//! A sentence encoder behind axum with ort and tokenizers, as its users write
//! it: a session behind a mutex, run on a blocking thread.
//!
//!     ORT_DYLIB_PATH=libonnxruntime.so ort null|delay|real FOLDER PORT
//!
//! FOLDER has tokenizer.json and, for real, model.onnx with the inputs
//! input_ids, attention_mask and token_type_ids.  null answers a fixed vector,
//! delay sleeps 20 ms first.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{Json, Router, extract::State, http::StatusCode, routing::post};
use ndarray::{Array2, Axis};
use ort::{inputs, session::Session, value::TensorRef};
use serde::{Deserialize, Serialize};
use tokenizers::Tokenizer;

#[derive(Deserialize)]
struct Request {
    input: String,
}

#[derive(Serialize)]
struct Row {
    object: &'static str,
    index: usize,
    embedding: Vec<f32>,
}

#[derive(Serialize)]
struct Answer {
    object: &'static str,
    data: Vec<Row>,
}

struct App {
    how: String,
    tokenizer: Tokenizer,
    session: Option<Mutex<Session>>,
    fixed: Vec<f32>,
}

fn run(app: &App, ids: &[u32]) -> anyhow::Result<Vec<f32>> {
    let n = ids.len();
    let ids =
        Array2::from_shape_fn((1, n), |(_, i)| i64::from(ids[i]));
    let ones = Array2::<i64>::ones((1, n));
    let zeros = Array2::<i64>::zeros((1, n));
    let mut session = app.session.as_ref().expect("real").lock().unwrap();
    let outputs = session.run(inputs![
        "input_ids" => TensorRef::from_array_view(&ids)?,
        "attention_mask" => TensorRef::from_array_view(&ones)?,
        "token_type_ids" => TensorRef::from_array_view(&zeros)?,
    ])?;
    let hidden = outputs[0].try_extract_array::<f32>()?;
    let mean = hidden.mean_axis(Axis(1)).expect("tokens");
    let length = mean.iter().map(|x| x * x).sum::<f32>().sqrt();

    Ok(mean.iter().map(|x| x / length).collect())
}

async fn embeddings(
    State(app): State<Arc<App>>,
    Json(request): Json<Request>,
) -> Result<Json<Answer>, StatusCode> {
    let encoding = app
        .tokenizer
        .encode(request.input, true)
        .map_err(|_| StatusCode::BAD_REQUEST)?;
    let ids = encoding.get_ids().to_vec();

    let embedding = match app.how.as_str() {
        "real" => {
            let app = app.clone();
            tokio::task::spawn_blocking(move || run(&app, &ids))
                .await
                .map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?
                .map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?
        }
        "delay" => {
            tokio::time::sleep(Duration::from_millis(20)).await;
            app.fixed.clone()
        }
        _ => app.fixed.clone(),
    };

    Ok(Json(Answer {
        object: "list",
        data: vec![Row { object: "embedding", index: 0, embedding }],
    }))
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().collect();
    let folder = &args[2];
    let mut tokenizer =
        Tokenizer::from_file(format!("{folder}/tokenizer.json"))
            .map_err(anyhow::Error::msg)?;
    tokenizer.with_padding(None);
    tokenizer.with_truncation(None).map_err(anyhow::Error::msg)?;
    let environment = ort::environment::init().build()?;
    let session = if args[1] == "real" {
        let path = format!("{folder}/model.onnx");
        Some(Mutex::new(
            Session::builder(&environment)?
                .with_intra_threads(2)
                .map_err(|e| anyhow::Error::msg(e.to_string()))?
                .commit_from_file(path)?,
        ))
    } else {
        None
    };
    let fixed = (0..384).map(|i| ((i as f32) * 0.37).sin() * 0.05).collect();
    let app = Arc::new(App { how: args[1].clone(), tokenizer, session, fixed });
    let router = Router::new()
        .route("/v1/embeddings", post(embeddings))
        .with_state(app);
    let at = format!("127.0.0.1:{}", args[3]);
    let listener = tokio::net::TcpListener::bind(at).await?;

    axum::serve(listener, router).await?;
    Ok(())
}
