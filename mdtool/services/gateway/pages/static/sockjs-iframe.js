"use strict";

SockJS.bootstrap_iframe();
