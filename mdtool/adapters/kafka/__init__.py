"""mdtool's topics on Apache Kafka and their records: a stable format for other programs.

Names of topics begin with a prefix, `mdtool` unless the bus's URL names another. Topics are created
when a service first needs them, and checked when one starts. `ticks`, `aggregates` and `bars` have
the same number of partitions; the content of a partition of the latter follows from the same
partition of `ticks`.

A symbol's ticks, and a stream's refused frames, are in the partition `crc32(name) % partitions`:
zlib's CRC-32 of the symbol, upper-case, or of the stream's id, in UTF-8.

=================  ==========  ==================================================================
topic              policy      records
=================  ==========  ==================================================================
`ticks`            delete      no key; a `TickBatch` of marketdata.proto whose `new_symbols` are
                               all symbols of the record. It has those frames of a run of a stream
                               that belong to the partition: offsets rise, and between them may be
                               frames of other partitions. The frames of a stream in a partition
                               are in order of sequence; frames that were resent are repeated.
`streams`          compact,    key: a stream's id. Value: its next sequence, in decimal digits: all
                   delete      frames before it are in `ticks`. Of two records the higher holds.
                               Where clients authenticate also: key: NUL, a stream's id, NUL, a
                               principal. Value: `claimed`. Of two principals the first one in the
                               topic has the stream; the record of the other is deleted.
`aggregates`       compact     the state that follows from the ticks before an offset of the same
                               partition, written in transactions, each with that offset
`bars`             compact,    key: symbol, `/`, length in ns, `/`, start in ns since the epoch.
                   delete      Value: a closed bar, as in `aggregates`. Written in those same
                               transactions.
`dead-letters`     delete      a record of `ticks` that could not be decoded, unchanged; its headers
                               are `topic`, `partition`, `offset` and `reason`
=================  ==========  ==================================================================

Keys of `aggregates` are a letter, `/` and a name; numbers in values are little-endian int64, prices
are at 1e-9, times in ns since the epoch:

======================  ==========================================================================
key                     value
======================  ==========================================================================
`s/SYMBOL`              the session: open, high, low, close, volume, count, exchange and ingest
                        time of the latest trade
`o/SYMBOL/LENGTH`       the open bar of a length: length, 1, start, open, high, low, close, volume,
                        count, times of its first and last trade. The trades of the shortest open
                        bar are not yet in those of other lengths.
`b/SYMBOL/LENGTH/SLOT`  a closed bar that may still be amended, the same with 0 for the 1. SLOT is
                        its start divided by the length, modulo the number of such bars.
`l/SYMBOL`              the lot, in units of 1e-9, in decimal digits
`p/STREAM`              the next sequence of a stream in this partition, in decimal digits;
                        empty once it is deleted
`t/`                    totals as JSON: `topic`, the id of the topic of ticks, `offset`, its next
                        offset, and counts by name
======================  ==========================================================================
"""
