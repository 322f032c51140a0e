//go:build !wasip1

package sdk

import "embed"

// Source is this package and package abi as they are compiled here, so that a
// plugin can be written where there is no network.
//
//go:embed calls.go config.go event.go fake.go fakehost.go guest.go imports.go sdk.go source.go verdict.go wire.go
//go:embed abi/abi.go abi/ABI.md abi/wafer.proto
var Source embed.FS
