use clap::Parser;
#[derive(Parser)]
struct A { #[command(flatten)] c: flowtrail_embedded::Config }
#[tokio::main]
async fn main() {
    let a = A::parse();
    let e = flowtrail_embedded::Engine::open(&a.c).unwrap_or_else(|e| { eprintln!("{e}"); std::process::exit(1) });
    let l = tokio::net::TcpListener::bind(a.c.clickhouse_listen).await.unwrap();
    let t = flowtrail_service::shutdown::on_signal().unwrap();
    flowtrail_embedded::serve(e, l, &Default::default(), t).await;
}
