"""mdtool's topics on Apache Kafka and what stands in them: the format that others may rely on.

Topics begin with a prefix, `mdtool` unless the bus's URL names another. They are made when a
service first needs them, and checked when one starts. `ticks`, `aggregates` and `bars` have as
many partitions as each other; what is in a partition of the latter follows from the same one of
`ticks`.

A symbol's ticks, and a stream's refused frames, are in the partition `crc32(name) % partitions`:
zlib's CRC-32 of the symbol, upper-case, or of the stream's id, in UTF-8.

=================  ==========  ==================================================================
topic              policy      records
=================  ==========  ==================================================================
`ticks`            delete      no key; a `TickBatch` of marketdata.proto whose `new_symbols` are
                               all that its symbols point into. It has those frames of a run of a
                               stream that belong into the partition: offsets rise, and between
                               them may be frames of other partitions. What a partition has of a
                               stream is in order of sequence; what was sent twice comes twice.
`streams`          compact,    key: a stream's id. Value: its next sequence, in decimal digits: all
                   delete      before it is in `ticks`. Of two records the higher holds.
`aggregates`       compact     what follows from the ticks before an offset of the same partition,
                               written in transactions, each with that offset
`bars`             compact,    key: symbol, `/`, length in ns, `/`, start in ns since the epoch.
                   delete      Value: a closed bar, as in `aggregates`. Written in those same
                               transactions.
`dead-letters`     delete      a record of `ticks` that could not be read, as it was; headers
                               `topic`, `partition`, `offset` and `reason` say whence and why
=================  ==========  ==================================================================

Keys of `aggregates` are a letter, `/` and a name; numbers in values are little-endian int64, prices
are at 1e-9, times in ns since the epoch:

======================  ==========================================================================
key                     value
======================  ==========================================================================
`s/SYMBOL`              the session: open, high, low, close, volume, count, exchange and ingest
                        time of the latest trade
`o/SYMBOL/LENGTH`       the open bar of a length: length, 1, start, open, high, low, close, volume,
                        count, times of its first and last trade. What is in that of the shortest
                        length is not in the longer ones yet.
`b/SYMBOL/LENGTH/SLOT`  a bar that has closed and may yet be amended, the same with 0 for the 1.
                        SLOT is its start divided by the length, modulo how many there may be.
`p/STREAM`              the next sequence of a stream in this partition, in decimal digits;
                        nothing once it is forgotten
`t/`                    totals as JSON: `topic`, the id of the topic of ticks, `offset`, the next
                        one of it, and counts by name
======================  ==========================================================================
"""
