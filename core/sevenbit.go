package core

import (
	"fmt"
	"io"
	"os"

	"github.com/wafermail/wafer/core/downgrade"
	"github.com/wafermail/wafer/core/mail"
	"github.com/wafermail/wafer/core/spill"
)

// sevenBit converts a message for a host that takes no other; a large one into a
// file of dir that has no name.
func sevenBit(dir string) func(*mail.Delivery) (head []byte, body io.ReaderAt, size int64, cleanup func(), err error) {
	return func(d *mail.Delivery) ([]byte, io.ReaderAt, int64, func(), error) {
		head, err := downgrade.Header(d.Head)
		if err != nil {
			return nil, nil, 0, nil, err
		}
		b := &spill.Buffer{Open: func() (spill.File, error) {
			f, err := os.CreateTemp(dir, "7bit-")
			if err != nil {
				return nil, err
			}
			if err := os.Remove(f.Name()); err != nil {
				return nil, fmt.Errorf("%w (%v)", err, f.Close())
			}
			return f, nil
		}}
		cleanup := func() { _ = b.Close() } // nobody needs what is in it
		if err := downgrade.Message(b, d.Body, d.Size); err != nil {
			cleanup()
			return nil, nil, 0, nil, err
		}
		return head, b, b.Size(), cleanup, nil
	}
}
