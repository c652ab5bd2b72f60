// The Go peer: one goroutine per connection with net and bufio, as the standard library is meant to be used.
//
//	line          one write per line
//	line-flush10  a bufio.Writer flushed after every 10 lines, and whenever no further line is waiting in the reader:
//	              without the second rule a client that waits for its answer would wait for ever
//	frame         4-byte big-endian length prefix, one write per frame
//
// Usage: echo MODE PORT [CERTIFICATE KEY] (port 0 lets the kernel choose; with a certificate over TLS). Prints one line when it listens. SIGWINCH collects garbage and
// returns free memory to the system: the memory suite asks every peer with a collector to do so.
package main

import (
	"bufio"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
)

const (
	readBytes     = 4096
	maxFrameBytes = 1 << 20
	linesPerFlush = 10
)

// echoLines answers each line with a write of its own.
func echoLines(conn net.Conn) error {
	reader := bufio.NewReaderSize(conn, readBytes)
	for {
		line, err := readLine(reader)
		if err != nil {
			return err
		}
		if _, err := conn.Write(line); err != nil {
			return err
		}
	}
}

// echoLinesFlush10 gathers the answers and flushes after ten of them, or when the reader holds no further byte.
func echoLinesFlush10(conn net.Conn) error {
	reader := bufio.NewReaderSize(conn, readBytes)
	writer := bufio.NewWriterSize(conn, readBytes)
	unflushed := 0
	for {
		line, err := readLine(reader)
		if err != nil {
			return err
		}
		if _, err := writer.Write(line); err != nil {
			return err
		}
		unflushed++
		if unflushed == linesPerFlush || reader.Buffered() == 0 {
			if err := writer.Flush(); err != nil {
				return err
			}
			unflushed = 0
		}
	}
}

// readLine returns a view that is valid until the next read. A line longer than the buffer is copied together.
func readLine(reader *bufio.Reader) ([]byte, error) {
	line, err := reader.ReadSlice('\n')
	if err != bufio.ErrBufferFull {
		return line, err
	}
	head := append([]byte(nil), line...)
	rest, err := reader.ReadBytes('\n')
	return append(head, rest...), err
}

// echoFrames reads prefix and payload into one buffer and answers with one write.
func echoFrames(conn net.Conn) error {
	reader := bufio.NewReaderSize(conn, readBytes)
	frame := make([]byte, 4, 512)
	for {
		frame = frame[:4]
		if _, err := io.ReadFull(reader, frame); err != nil {
			return err
		}
		length := binary.BigEndian.Uint32(frame)
		if length == 0 || length > maxFrameBytes {
			return fmt.Errorf("frame of %d bytes", length)
		}
		end := 4 + int(length)
		if cap(frame) < end {
			frame = append(make([]byte, 0, end), frame...)
		}
		frame = frame[:end]
		if _, err := io.ReadFull(reader, frame[4:]); err != nil {
			return err
		}
		if _, err := conn.Write(frame); err != nil {
			return err
		}
	}
}

func collectOnSignal() {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGWINCH)
	for range signals {
		debug.FreeOSMemory()
	}
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

func main() {
	modes := map[string]func(net.Conn) error{
		"line": echoLines, "line-flush10": echoLinesFlush10, "frame": echoFrames,
	}
	if len(os.Args) != 3 && len(os.Args) != 5 || modes[os.Args[1]] == nil {
		fail(fmt.Errorf("usage: echo line|line-flush10|frame PORT [CERTIFICATE KEY]"))
	}
	raiseDescriptorLimit()
	serve := modes[os.Args[1]]
	listener, err := net.Listen("tcp4", "127.0.0.1:"+os.Args[2])
	if err != nil {
		fail(err)
	}
	address := listener.Addr().String()
	if len(os.Args) == 5 {
		identity, err := tls.LoadX509KeyPair(os.Args[3], os.Args[4])
		if err != nil {
			fail(err)
		}
		// Session tickets are on by default; TCP_NODELAY is too, beneath as well.
		listener = tls.NewListener(listener, &tls.Config{Certificates: []tls.Certificate{identity}})
	}
	go collectOnSignal()
	fmt.Printf("{\"msg\":\"ready\",\"listeners\":[{\"name\":\"echo\",\"address\":%q}]}\n", address)
	for {
		conn, err := listener.Accept() // TCP_NODELAY is on by default in Go.
		if err != nil {
			fail(err)
		}
		go func() {
			defer conn.Close()
			_ = serve(conn) // Any error, the end of the stream included, ends this connection and no other.
		}()
	}
}

func raiseDescriptorLimit() {
	var limit syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit) == nil {
		limit.Cur = limit.Max
		_ = syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit)
	}
}
