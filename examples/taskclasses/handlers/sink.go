package main

import (
	"bufio"
	"fmt"
	"net"
	"strings"
	"sync"
)

// sink is a mail server that keeps what it gets.
type sink struct {
	Addr     string
	mails    chan string // "recipient: subject"
	listener net.Listener
	clients  sync.WaitGroup
}

func startSink() (*sink, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s := &sink{Addr: l.Addr().String(), mails: make(chan string, 16), listener: l}
	s.clients.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return // closed
			}
			s.clients.Go(func() { s.serve(conn) })
		}
	})
	return s, nil
}

// Close ends the server and waits for its clients to be served.
func (s *sink) Close() {
	s.listener.Close()
	s.clients.Wait()
}

// next returns the oldest mail that was not looked at.
func (s *sink) next() string {
	select {
	case mail := <-s.mails:
		return mail
	default:
		return "none"
	}
}

// serve speaks as much SMTP as it takes to receive mail.
func (s *sink) serve(conn net.Conn) {
	defer conn.Close()
	in := bufio.NewScanner(conn)
	say := func(line string) { fmt.Fprintf(conn, "%s\r\n", line) }
	to, subject, data := "", "", false

	say("220 sink")
	for in.Scan() {
		line := in.Text()
		verb, _, _ := strings.Cut(line, " ")
		switch {
		case data && line == ".":
			data = false
			s.mails <- to + ": " + subject
			say("250 kept")
		case data:
			if text, ok := strings.CutPrefix(line, "Subject: "); ok {
				subject = text
			}
		case verb == "RCPT":
			to = strings.Trim(strings.TrimPrefix(line, "RCPT TO:"), "<>")
			say("250 ok")
		case verb == "DATA":
			data = true
			say("354 go on")
		case verb == "QUIT":
			say("221 bye")
			return
		default: // EHLO, MAIL
			say("250 ok")
		}
	}
}
