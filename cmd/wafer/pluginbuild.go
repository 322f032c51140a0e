package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/wafermail/wafer/core"
)

type pluginBuildCmd struct {
	Dir string `arg:"" optional:"" default:"." help:"Folder of the plugin (${default})."`
	O   string `short:"o" name:"o" placeholder:"FILE" help:"Where the module goes (NAME.wasm in the folder)."`
}

// Run compiles with stock Go and looks at what came out as a server would.
func (c *pluginBuildCmd) Run(std streams) error {
	dir, err := filepath.Abs(c.Dir)
	if err != nil {
		return err
	}
	if _, err := os.Stat(filepath.Join(dir, "main.go")); err != nil {
		return fmt.Errorf("%s has no main.go: name the folder of a plugin, or make one with wafer plugin new NAME", c.Dir)
	}
	out := c.O
	if out == "" {
		out = filepath.Join(dir, filepath.Base(dir)+".wasm")
	}
	if out, err = filepath.Abs(out); err != nil {
		return err
	}
	if _, err := exec.LookPath("go"); err != nil {
		return errors.New("plugins are compiled by Go, which is not installed: see https://go.dev/dl")
	}
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-buildmode=c-shared", "-o", out, ".")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm", "CGO_ENABLED=0")
	cmd.Stdout, cmd.Stderr = std.err, std.err
	if err := cmd.Run(); err != nil {
		var ended *exec.ExitError
		if errors.As(err, &ended) {
			return fmt.Errorf("go build in %s ended with %d", dir, ended.ExitCode())
		}
		return err
	}
	x, err := core.Examine(context.Background(), out)
	if err != nil {
		return err
	}
	if x.Refused != nil {
		return fmt.Errorf("%s was built, but no server would load it: %w", out, x.Refused)
	}
	_, err = fmt.Fprintf(std.out, "%s: %s %s, %d octets, digest %s\n", out, x.Manifest.ID, x.Manifest.Version, x.Size, x.Digest[:12])
	return err
}
