//! The processes of the gateway's benchmark, each by its role, so that /proc says what one of them costs: `server` answers at once, `gateway ADDRESS` is
//! the gateway in front of it, `load ADDRESS RATE SECONDS` calls. benches/gateway/run starts them, and other proxies beside them.

mod load;
mod serve;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .expect("threads");
    match arguments.as_slice() {
        ["server"] => runtime.block_on(serve::server()),
        ["gateway", server] => runtime.block_on(serve::gateway(server.parse().expect("HOST:PORT"))),
        ["load", proxy, rate, seconds] => runtime.block_on(load::run(
            proxy.parse().expect("HOST:PORT"),
            rate.parse().expect("calls in a second"),
            seconds.parse().expect("seconds"),
        )),
        _ => eprintln!("benches/gateway/run starts this with a role: server, gateway or load"),
    }
}
