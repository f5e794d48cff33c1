package loglines

import (
	"bytes"
	"strings"
	"testing"
)

func benchmark(b *testing.B, line string) {
	in := []byte(strings.Repeat(line+"\n", 16<<20/(len(line)+1)))
	b.SetBytes(int64(len(in)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Scan(bytes.NewReader(in), func(Match) {}); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkScan(b *testing.B) {
	for _, bb := range []struct{ name, line string }{
		{"ordinary", `10.0.3.17 - - [22/Nov/2026:22:14:05 +0000] "GET /api/v1/orders?customer=4711&page=2 HTTP/1.1" 200 5316 "-" "Mozilla/5.0 (X11; Linux x86_64)" rt=0.012` + "\n" +
			"22 Nov 2026 22:14:05.312 * Background saving started by pid 20447\n" +
			"Nov 22 22:14:05 db1 sshd[1234]: Accepted publickey for deploy from 10.0.3.1 port 51122 ssh2"},
		{"short", "ok"},
		{"long", strings.Repeat("the quick brown fox forks over the lazy dog ", 10_000)},
		{"candidates", `2026/11/22 22:14:05 [error] 7#7: *1 connect() to unix:/run/php.sock failed (11: Resource temporarily unavailable) while connecting to upstream, client: 10.0.3.17, request: "GET / HTTP/1.1"`},
		{"coloured", "\x1b[32minfo\x1b[0m: request served in \x1b[1m12 ms\x1b[0m for GET /api/v1/orders"},
		{"matches", "4121:M 22 Nov 2026 22:13:51.129 # Can't save in background: fork: Cannot allocate memory"},
	} {
		b.Run(bb.name, func(b *testing.B) { benchmark(b, bb.line) })
	}
}
