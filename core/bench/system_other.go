//go:build !linux

package main

import (
	"os"
	"os/exec"
	"runtime"
	"time"
)

func detach(*exec.Cmd) {}

// syncAll syncs the directory alone, so that the disk's figures mean little.
func syncAll(dir *os.File) error { return dir.Sync() }

func spread(string) {}

func changed(fi os.FileInfo) time.Time { return fi.ModTime() }

func kernel() string { return runtime.GOOS }

func ownCPU() time.Duration { return 0 }
