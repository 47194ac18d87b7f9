//! The official client: it writes what a live gateway sends, as DBN, to standard output.

use std::{env, error::Error, io};

use databento::{
    dbn::{
        encode::{dbn::Encoder, EncodeRecord, EncodeRecordRef},
        Compression, SType, Schema, SystemMsg,
    },
    live::{Subscription, Unsubscription},
    LiveClient, Symbols,
};
use time::OffsetDateTime;

const USAGE: &str = "ADDRESS KEY DATASET COMPRESSION TS_OUT SUBSCRIPTION...\n\
    a SUBSCRIPTION is SCHEMA/STYPE/SYMBOL,...[/START_NS|/snapshot|/unsubscribe]";

type Outcome<T> = Result<T, Box<dyn Error>>;

enum Order {
    Subscribe(Subscription),
    Unsubscribe(Unsubscription),
}

fn order(text: &str) -> Outcome<Order> {
    let fields: Vec<&str> = text.split('/').collect();
    let [schema, stype, symbols, rest @ ..] = fields.as_slice() else {
        return Err(USAGE.into());
    };
    let schema: Schema = schema.parse()?;
    let stype: SType = stype.parse()?;
    let symbols = match *symbols {
        "ALL_SYMBOLS" => Symbols::All,
        names => Symbols::from(names.split(',').collect::<Vec<_>>()),
    };
    let named = Subscription::builder()
        .symbols(symbols)
        .schema(schema)
        .stype_in(stype);
    Ok(match rest {
        [] => Order::Subscribe(named.build()),
        ["snapshot"] => Order::Subscribe(named.use_snapshot(true).build()),
        ["unsubscribe"] => Order::Unsubscribe(named.build().to_unsubscription()),
        [start_ns, ..] => {
            let start = OffsetDateTime::from_unix_timestamp_nanos(start_ns.parse()?)?;
            Order::Subscribe(named.start(start).build())
        }
    })
}

/// Subscribe, start, unsubscribe, and write records until the gateway ends the session, or has
/// confirmed that nothing is subscribed any longer.
async fn run(arguments: &[String]) -> Outcome<()> {
    let [address, key, dataset, compression, ts_out, orders @ ..] = arguments else {
        return Err(USAGE.into());
    };
    let compression: Compression = compression.parse()?;
    let mut client = LiveClient::builder()
        .addr(address.as_str())
        .await?
        .key(key)?
        .dataset(dataset)
        .compression(compression)
        .send_ts_out(ts_out == "1")
        .build()
        .await?;
    let mut unsubscriptions = Vec::new();
    for text in orders {
        match order(text)? {
            Order::Subscribe(subscription) => client.subscribe(subscription).await?,
            Order::Unsubscribe(unsubscription) => unsubscriptions.push(unsubscription),
        }
    }
    let metadata = client.start().await?;
    let expected = unsubscriptions.len();
    for each in unsubscriptions {
        client.unsubscribe(each).await?;
    }
    let mut confirmed = 0;
    let mut encoder = Encoder::new(io::BufWriter::new(io::stdout().lock()), &metadata)?;
    while let Some(record) = client.next_record().await? {
        encoder.encode_record_ref(record)?;
        if let Some(system) = record.get::<SystemMsg>() {
            confirmed += usize::from(system.msg()?.starts_with("Unsubscribed"));
        }
        if expected > 0 && confirmed == expected {
            client.close().await?;
            break;
        }
    }
    Ok(encoder.flush()?)
}

fn main() -> Outcome<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(run(&arguments))
}
