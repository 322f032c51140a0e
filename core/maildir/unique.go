package maildir

import (
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"time"
)

// names makes base names for new messages: "SECONDS.MmicrosPpidQcount.host",
// unique on this host for ever (https://cr.yp.to/proto/maildir.html), which is
// what Dovecot and every other Maildir program expect.
type names struct {
	host  string
	pid   int
	count atomic.Uint64
}

func newNames(host string) *names {
	host = strings.NewReplacer("/", `\057`, ":", `\072`, ",", `\054`).Replace(host)
	return &names{host: host, pid: os.Getpid()}
}

// base returns a unique name for a file in tmp/, whose size is not known yet.
func (n *names) base(now time.Time) string {
	return fmt.Sprintf("%d.M%06dP%dQ%d.%s", now.Unix(), now.Nanosecond()/1000, n.pid, n.count.Add(1), n.host)
}

// next returns a base name for a message of size octets that arrives at now.
// Its ",S=" is the size of the file and ",W=" its size with CRLF line ends:
// the two are equal because messages are stored with CRLF.
func (n *names) next(now time.Time, size int64) string {
	return fmt.Sprintf("%s,S=%d,W=%d", n.base(now), size, size)
}
