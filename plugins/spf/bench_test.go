//go:build !wasip1

package main

import (
	"testing"

	"github.com/wafermail/wafer/sdk"
)

// BenchmarkCheck evaluates both identities natively.
func BenchmarkCheck(b *testing.B) {
	f := sdk.NewFake(&plugin)
	f.Zone = zone()
	if err := f.Configure(nil); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		f.Asked = f.Asked[:0]
		v, err := f.Call(sdk.Facts{Stage: sdk.Mail, Client: "192.0.2.1", Helo: "mail.example.com", Sender: "a@example.com", HasSender: true, Hostname: "mx.local.example"})
		if err != nil || v.Reason != "spf-pass" {
			b.Fatal(v, err)
		}
	}
}
